#!/bin/busybox sh
# First process of the virtual machine: the host of one guest, which lives in
# namespaces of its own and reaches us by AF_VSOCK (CID 1, the loopback).
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
seconds() { cut -d' ' -f1 /proc/uptime; }
echo "RESULT up-init $(seconds)"
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /run
while read -r module; do insmod "/modules/$module.ko" || echo "RESULT insmod failed $module"; done </modules/order
echo "RESULT kernel $(uname -r)"

# The internet is one address of ours, with a name.
ip link set lo up
ip address add 203.0.113.10/32 dev lo
httpd -p 203.0.113.10:80 -h /www
tool echo 203.0.113.10 5000 &
timeout 60 tool sink 203.0.113.10 9000 >/tmp/received &
sink=$!

enclaver-outer run --listen vsock://any:7000 --guest-logs stdout --control /run/control >/tmp/outer.log 2>&1 &
outer=$!

start=$(seconds)
echo "RESULT up-odyn $start"
unshare -p -n -m -f chroot /guest /bin/busybox sh -c '/bin/busybox mount -t proc proc /proc; exec "$@"' sh \
    /odyn-net run --stdio host --link vsock://1:7000 --policy /policy.yaml --audit /audit.log --log /odyn.log \
    -- /bin/busybox sh /program.sh
echo "RESULT exit $?"
# Up to here, the guest's last bytes may not be on their way any more: it is gone.
echo "RESULT alive $(pidof odyn-net | wc -w)"
echo "RESULT status $(enclaver-outer status --json --control /run/control | tr -d '\n')"
wait $sink
echo "RESULT length $(wc -c </tmp/received)"
echo "RESULT received $(sha256sum </tmp/received | cut -d' ' -f1)"
echo "RESULT sent $(sha256sum </guest/blob | cut -d' ' -f1)"
kill -TERM $outer
wait $outer
echo "RESULT outer $?"
echo "RESULT times $start $(seconds)"
echo "--- enclaver-outer"; cat /tmp/outer.log
echo "--- odyn-net"; cat /guest/odyn.log
echo "--- audit"; cat /guest/audit.log
echo "RESULT done"
reboot -f
