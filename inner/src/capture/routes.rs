//! Makes every destination routable in a namespace that has only `lo`.
//!
//! A Nitro enclave, like a new network namespace, has `lo` down and no route: connect() fails with
//! ENETUNREACH before a packet filter sees a packet. So odyn-net brings `lo` up and adds an address
//! of global scope in each family (the kernel needs a source address for flows to other hosts) and
//! a default route. A second table, selected by the firewall mark, makes every address local, which
//! lets tproxy receive datagrams to them.
//!
//! Each step can be repeated: existing addresses and routes stay.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use netlink_packet_core::ErrorMessage;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::nft::UDP_MARK;

/// Index of `lo` in every network namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;
/// Routing table in which every address is local.
const LOCAL_TABLE: u32 = 100;
/// Priority of the rule: before the `main` table (32766), after the kernel's `local` table (0).
const RULE_PRIORITY: u32 = 100;

/// The guest's own addresses on `lo`, inside the block that synthetic addresses come from.
#[derive(Debug, Clone, Copy)]
pub struct OwnAddresses {
    /// Source address of IPv4 flows.
    pub v4: Ipv4Addr,
    /// Source address of IPv6 flows; `None` when the kernel has no IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// A step of the set-up that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}{hint}")]
pub struct RouteError {
    step: String,
    hint: &'static str,
    #[source]
    source: io::Error,
}

impl RouteError {
    pub(super) fn new(step: &str, source: io::Error) -> Self {
        Self {
            step: step.into(),
            hint: "",
            source,
        }
    }

    /// Whether a right is missing, as opposed to a kernel feature.
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// Whether this kernel has IPv6 (`ipv6.disable=1` removes it).
pub fn kernel_has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Brings `lo` up and installs addresses, routes and policy-routing rules.
///
/// # Errors
/// A step failed; the error names it and, where known, the kernel option or capability.
pub async fn install(own: OwnAddresses) -> Result<(), RouteError> {
    with_handle(async |handle| install_with(handle, own).await).await
}

/// Runs `work` with a route netlink socket.
pub(super) async fn with_handle<T>(
    work: impl AsyncFnOnce(&Handle) -> Result<T, RouteError>,
) -> Result<T, RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| RouteError {
        step: "open a route netlink socket".into(),
        hint: "",
        source,
    })?;
    let driver = tokio::spawn(connection);
    let result = work(&handle).await;
    // The connection ends with its last handle.
    drop(handle);
    let _ = driver.await;
    result
}

/// Brings `lo` up.
pub(super) async fn raise_loopback(handle: &Handle) -> Result<(), RouteError> {
    let up = LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
    check("bring lo up", handle.link().change(up).execute().await)
}

async fn install_with(handle: &Handle, own: OwnAddresses) -> Result<(), RouteError> {
    raise_loopback(handle).await?;
    add_address(handle, own.v4.into(), 32).await?;
    let default = v4_route(RouteScope::Universe, RouteType::Unicast).build();
    check(
        "add the IPv4 default route to lo",
        handle.route().add(default).execute().await,
    )?;
    let local = v4_route(RouteScope::Host, RouteType::Local)
        .table_id(LOCAL_TABLE)
        .build();
    check(
        "add the IPv4 route that makes captured UDP local",
        handle.route().add(local).execute().await,
    )?;
    let rule = handle
        .rule()
        .add()
        .v4()
        .fw_mark(UDP_MARK)
        .table_id(LOCAL_TABLE);
    check(
        "add the IPv4 rule for captured UDP",
        rule.priority(RULE_PRIORITY)
            .action(RuleAction::ToTable)
            .execute()
            .await,
    )?;

    if let Some(v6) = own.v6 {
        enable_ipv6_on_loopback();
        add_address(handle, v6.into(), 128).await?;
        let default = v6_route(RouteType::Unicast).build();
        check(
            "add the IPv6 default route to lo",
            handle.route().add(default).execute().await,
        )?;
        let local = v6_route(RouteType::Local).table_id(LOCAL_TABLE).build();
        check(
            "add the IPv6 route that makes captured UDP local",
            handle.route().add(local).execute().await,
        )?;
        let rule = handle
            .rule()
            .add()
            .v6()
            .fw_mark(UDP_MARK)
            .table_id(LOCAL_TABLE);
        check(
            "add the IPv6 rule for captured UDP",
            rule.priority(RULE_PRIORITY)
                .action(RuleAction::ToTable)
                .execute()
                .await,
        )?;
    }
    Ok(())
}

fn v4_route(scope: RouteScope, kind: RouteType) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(LOOPBACK_INDEX)
        .scope(scope)
        .kind(kind)
}

fn v6_route(kind: RouteType) -> RouteMessageBuilder<Ipv6Addr> {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .output_interface(LOOPBACK_INDEX)
        .kind(kind)
}

async fn add_address(handle: &Handle, address: IpAddr, prefix: u8) -> Result<(), RouteError> {
    add_address_to(handle, LOOPBACK_INDEX, "lo", address, prefix).await
}

/// Adds an address to an interface, usable at once.
pub(super) async fn add_address_to(
    handle: &Handle,
    index: u32,
    name: &str,
    address: IpAddr,
    prefix: u8,
) -> Result<(), RouteError> {
    let mut request = handle.address().add(index, address, prefix);
    // Duplicate address detection would keep the address unusable for a second.
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    check(&format!("add {address} to {name}"), request.execute().await)
}

/// Switches IPv6 on for `lo`, where only captured flows use it. Some images switch it off by
/// sysctl. A failure shows when the address is added.
fn enable_ipv6_on_loopback() {
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0");
}

pub(super) fn check(step: &str, result: Result<(), rtnetlink::Error>) -> Result<(), RouteError> {
    let source = match result {
        Ok(()) => return Ok(()),
        Err(rtnetlink::Error::NetlinkError(ErrorMessage {
            code: Some(code), ..
        })) => io::Error::from_raw_os_error(code.get().wrapping_neg()),
        Err(other) => io::Error::other(other.to_string()),
    };
    if source.kind() == io::ErrorKind::AlreadyExists {
        return Ok(());
    }
    let hint = match source.kind() {
        io::ErrorKind::PermissionDenied => " (needs CAP_NET_ADMIN in this network namespace)",
        io::ErrorKind::Unsupported => {
            " (needs CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES)"
        }
        _ => "",
    };
    Err(RouteError {
        step: step.into(),
        hint,
        source,
    })
}
