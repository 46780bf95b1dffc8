//! Reads the packets that the kernel rejected: ICMP, SCTP, raw IP, all that is not captured.
//!
//! The rules copy the headers of each such packet to NFLOG, and they become audit records here.
//! Repeated packets to one destination give one record in [`QUIET`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nflog::{
    ConfigCmd, ConfigMode, PacketNla, ULogMessage, config_request,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use crate::capture::nft::LOG_GROUP;

/// Interval of the records of repeated packets to one destination.
pub const QUIET: Duration = Duration::from_secs(30);
/// Destinations remembered for [`QUIET`]; packets to further ones are all recorded.
const REMEMBERED: usize = 4096;

/// The stream of rejected packets.
pub struct RejectedPackets {
    socket: TokioSocket,
    recent: RecentPackets,
}

/// The destinations recorded lately.
#[derive(Default)]
pub struct RecentPackets {
    seen: HashMap<(u8, IpAddr, u16), Instant>,
}

/// A packet that the kernel rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectedPacket {
    /// IP protocol number of the outermost header that is not an extension.
    pub protocol: u8,
    /// Destination; the port is 0 where the protocol has none.
    pub destination: SocketAddr,
}

impl RejectedPacket {
    /// The protocol's name in the audit record.
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".into(),
            6 => "tcp".into(),
            17 => "udp".into(),
            58 => "icmpv6".into(),
            number => format!("ip-{number}"),
        }
    }

    /// The destination, with the port where the protocol has one.
    pub fn destination_text(&self) -> String {
        match self.destination.port() {
            0 => self.destination.ip().to_string(),
            _ => self.destination.to_string(),
        }
    }
}

impl RejectedPackets {
    /// Subscribes to the log group of the rules.
    ///
    /// # Errors
    /// The kernel has no NFLOG, or another process holds the group.
    pub async fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        let request = config_request(
            NetfilterProtoFamily::Unspec,
            LOG_GROUP,
            vec![ConfigCmd::Bind.into(), ConfigMode::PACKET_MAX.into()],
        );
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        socket.send(&bytes).await?;
        let (answer, _) = socket.recv_from_full().await?;
        if let Ok(NetlinkMessage {
            payload: NetlinkPayload::Error(error),
            ..
        }) = NetlinkMessage::<NetfilterMessage>::deserialize(&answer)
            && error.code.is_some()
        {
            return Err(error.to_io());
        }
        Ok(Self {
            socket,
            recent: RecentPackets::default(),
        })
    }

    /// Waits for packets that were not recorded lately. Cancel safe.
    ///
    /// # Errors
    /// The netlink socket failed for good.
    pub async fn next(&mut self) -> io::Result<Vec<RejectedPacket>> {
        loop {
            let bytes = match self.socket.recv_from_full().await {
                Ok((bytes, _)) => bytes,
                // The app sent faster than odyn-net read; the kernel rejected those packets
                // unrecorded.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let packets: Vec<RejectedPacket> = packets_of(&bytes)
                .into_iter()
                .filter(|packet| self.recent.is_news(packet, now))
                .collect();
            if !packets.is_empty() {
                return Ok(packets);
            }
        }
    }
}

impl RecentPackets {
    /// Whether to record a packet now.
    pub fn is_news(&mut self, packet: &RejectedPacket, now: Instant) -> bool {
        let key = (
            packet.protocol,
            packet.destination.ip(),
            packet.destination.port(),
        );
        if let Some(at) = self.seen.get(&key)
            && now.duration_since(*at) < QUIET
        {
            return false;
        }
        if self.seen.len() >= REMEMBERED {
            self.seen.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        if self.seen.len() < REMEMBERED {
            self.seen.insert(key, now);
        }
        true
    }
}

/// Parses the packets of one netlink datagram, which may hold several messages.
fn packets_of(mut bytes: &[u8]) -> Vec<RejectedPacket> {
    let mut packets = Vec::new();
    while let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(bytes) {
        if let NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)),
            ..
        }) = &message.payload
        {
            for attribute in attributes {
                if let PacketNla::Payload(payload) = attribute {
                    packets.extend(parse(payload));
                }
            }
        }
        let length = (message.header.length as usize).next_multiple_of(4);
        match bytes.get(length..) {
            Some(rest) if length > 0 && !rest.is_empty() => bytes = rest,
            _ => break,
        }
    }
    packets
}

/// Parses protocol, destination and port of an IP packet that may be cut short. The app wrote these
/// bytes, so any may be wrong.
pub fn parse(packet: &[u8]) -> Option<RejectedPacket> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<RejectedPacket> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let protocol = *packet.get(9)?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(RejectedPacket {
        protocol,
        destination: SocketAddr::new(
            Ipv4Addr::from(destination).into(),
            port(protocol, packet.get(header..).unwrap_or_default()),
        ),
    })
}

fn parse_v6(packet: &[u8]) -> Option<RejectedPacket> {
    let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let mut protocol = *packet.get(6)?;
    let mut rest = packet.get(40..).unwrap_or_default();
    // Skips hop-by-hop, routing and destination options (RFC 8200 section 4), a few at most.
    for _ in 0..4 {
        if !matches!(protocol, 0 | 43 | 60) {
            break;
        }
        let (Some(next), Some(length)) = (rest.first(), rest.get(1)) else {
            break;
        };
        protocol = *next;
        rest = rest
            .get((usize::from(*length) + 1) * 8..)
            .unwrap_or_default();
    }
    Some(RejectedPacket {
        protocol,
        destination: SocketAddr::new(Ipv6Addr::from(destination).into(), port(protocol, rest)),
    })
}

/// The destination port of protocols that begin with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
fn port(protocol: u8, transport: &[u8]) -> u16 {
    match (protocol, transport.get(2..4)) {
        (6 | 17 | 33 | 132 | 136, Some([high, low])) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_icmp_and_sctp_over_ipv4() {
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 0, 1, 8, 8, 8, 8,
        ];
        packet.extend([8, 0, 0, 0]);
        let parsed = parse(&packet).unwrap();
        assert_eq!(parsed.protocol_name(), "icmp");
        assert_eq!(parsed.destination, "8.8.8.8:0".parse().unwrap());

        packet[9] = 132;
        packet[20..24].copy_from_slice(&[0, 1, 0x0b, 0x59]);
        let parsed = parse(&packet).unwrap();
        assert_eq!(parsed.protocol_name(), "ip-132");
        assert_eq!(parsed.destination.port(), 2905);
    }

    #[test]
    fn skips_extension_headers() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 16, 60, 64];
        packet.extend([0xfd; 16]);
        packet.extend("2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([58, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([128, 0, 0, 0]);
        let parsed = parse(&packet).unwrap();
        assert_eq!(parsed.protocol_name(), "icmpv6");
        assert_eq!(
            parsed.destination.ip(),
            "2001:db8::9".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn any_truncation_is_survived() {
        let mut packet = [0x6f; 64];
        packet[6] = 0;
        for end in 0..packet.len() {
            let _ = parse(&packet[..end]);
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0x45; 19]), None);
        assert_eq!(parse(&[0x15; 40]), None);
    }
}
