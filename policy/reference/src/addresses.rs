//! Special addresses, and the IPv4 addresses inside IPv6 ones.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// Special blocks as text, the narrower of two that overlap being the one that counts.
const SPECIAL: [&str; 13] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::/32",
    "fd6f:6479:6e00::/64",
];
const SYNTHETIC: [&str; 2] = ["198.18.0.0/15", "fd6f:6479:6e00::/64"];

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_default()
}

pub(crate) fn special_block(address: IpAddr) -> Option<IpNet> {
    SPECIAL
        .into_iter()
        .map(net)
        .filter(|block| block.contains(&address))
        .max_by_key(IpNet::prefix_len)
}

pub(crate) fn is_synthetic(address: IpAddr) -> bool {
    SYNTHETIC
        .into_iter()
        .map(net)
        .any(|block| block.contains(&address))
}

/// IPv4-mapped addresses as IPv4.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if net("::ffff:0.0.0.0/96").contains(&address) => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

/// The address itself and the IPv4 address inside it.
pub(crate) fn forms(address: IpAddr) -> Vec<IpAddr> {
    let mut forms = vec![address];
    if let IpAddr::V6(v6) = address {
        let octets = v6.octets();
        let [a, b, c, d] = if net("2002::/16").contains(&address) {
            [octets[2], octets[3], octets[4], octets[5]]
        } else {
            [octets[12], octets[13], octets[14], octets[15]]
        };
        let has_v4 = ["2002::/16", "64:ff9b::/96", "::/96"]
            .into_iter()
            .any(|block| net(block).contains(&address));
        if has_v4 && !net("::/127").contains(&address) {
            forms.push(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }
    }
    forms
}
