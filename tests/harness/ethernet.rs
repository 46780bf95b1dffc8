//! An Ethernet for a guest, with a neighbour that records every packet it gets.

use crate::World;

/// Gives the guest an Ethernet with a neighbour that answers for the whole
/// world, and writes down each IP packet that reaches it.
const SCRIPT: &str = r#"
ip link add eth0 type veth peer name peer0
unshare --net sleep 1000 & peer=$!
while [ "$(readlink /proc/$peer/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link set peer0 netns $peer
nsenter -t $peer -n sh -c 'ip link set lo up; ip link set peer0 up
  ip address add 192.0.2.201/24 dev peer0; ip address add 2001:db8:2::1/64 dev peer0 nodad
  ip address add fe80::2/64 dev peer0 nodad
  ip route add local 0.0.0.0/0 dev lo; ip -6 route add local 2000::/3 dev lo'
ip link set lo up; ip link set eth0 up
ip address add 192.0.2.200/24 dev eth0; ip address add 2001:db8:2::2/64 dev eth0 nodad
ip route add default via 192.0.2.201; ip -6 route add default via 2001:db8:2::1
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
nsenter -t $peer -n python3 -c '
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
out = open("leaks", "a", buffering=1)
print("capturing", file=out)
while True:
    data, (device, kind, direction, *_) = s.recvfrom(65536)
    if device != "peer0" or direction == socket.PACKET_OUTGOING: continue
    if kind == 0x800: print("ipv4", data[9], socket.inet_ntoa(data[16:20]), file=out)
    elif kind == 0x86dd:
        protocol, body = data[6], data[40:]
        if protocol == 0: protocol, body = body[0], body[8:]  # hop-by-hop: multicast reports
        if protocol == 58 and body[0] in (133, 134, 135, 136, 143): continue  # the kernel itself
        print("ipv6", protocol, socket.inet_ntop(socket.AF_INET6, data[24:40]), file=out)
' >/dev/null 2>&1 &
while ! grep -q capturing leaks 2>/dev/null; do sleep 0.01; done
"#;

/// The script that makes the Ethernet, for the guest to run before `odyn-net`. It leaves
/// `$peer`, a process in the neighbour's namespace.
pub fn prelude(world: &World) -> String {
    format!("cd {}\n{SCRIPT}", world.scratch().display())
}

/// The packets that reached the neighbour, a line for each.
pub fn leaks(world: &World) -> String {
    let text = std::fs::read_to_string(world.scratch().join("leaks")).expect("a capture");
    let packets = text.strip_prefix("capturing\n");
    packets.expect("the neighbour listened").to_owned()
}
