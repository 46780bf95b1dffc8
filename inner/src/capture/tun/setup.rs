//! Brings the device up and leads every route into it.
//!
//! The device has the own addresses, not `lo`, so that they vanish with it. The default routes of
//! both families replace existing ones. The kernel looks at its table of local addresses first, so
//! an app's own loopback is not captured.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::device::{MTU, NAME};
use crate::capture::routes::{
    LOOPBACK_INDEX, OwnAddresses, RouteError, add_address_to, check, raise_loopback, with_handle,
};

/// Packets that wait in the device; further ones are lost, as on any busy interface. At up to 64
/// KiB each, this bounds the memory that an app can make the kernel use.
const QUEUE: u32 = 1000;

/// Lists the interfaces besides `lo` that are up. Through them an app could bypass the device.
///
/// # Errors
/// The kernel's list cannot be read.
pub(super) fn other_interfaces() -> io::Result<Vec<String>> {
    let mut names: Vec<String> = getifaddrs()?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .map(|interface| interface.interface_name)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Brings the device up, with the own addresses and the default routes.
///
/// # Errors
/// The kernel refused a step; the error names it.
pub(super) async fn install(own: OwnAddresses) -> Result<(), RouteError> {
    with_handle(async |handle| install_with(handle, own).await).await
}

async fn install_with(handle: &Handle, own: OwnAddresses) -> Result<(), RouteError> {
    let index = check_io(
        &format!("find the interface {NAME}"),
        if_nametoindex(NAME).map_err(io::Error::from),
    )?;
    raise_loopback(handle).await?;
    quiet_ipv6(own.v6.is_some());
    let up = LinkUnspec::new_with_index(index)
        .mtu(MTU)
        .txqueuelen(QUEUE)
        .up()
        .build();
    check(
        &format!("bring {NAME} up"),
        handle.link().change(up).execute().await,
    )?;
    forget_loopback_routes(handle).await;

    add_address_to(handle, index, NAME, own.v4.into(), 32).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(index)
        .pref_source(own.v4)
        .scope(RouteScope::Universe)
        .kind(RouteType::Unicast)
        .build();
    check(
        &format!("make {NAME} the IPv4 default route"),
        handle.route().add(default).replace().execute().await,
    )?;
    if let Some(v6) = own.v6 {
        add_address_to(handle, index, NAME, IpAddr::V6(v6), 128).await?;
        let default = RouteMessageBuilder::<Ipv6Addr>::new()
            .output_interface(index)
            .kind(RouteType::Unicast)
            .build();
        check(
            &format!("make {NAME} the IPv6 default route"),
            handle.route().add(default).replace().execute().await,
        )?;
    }
    Ok(())
}

/// Removes default routes to `lo`, which an earlier run with nftables left. They would
/// take precedence over the new ones, or stand beside them.
async fn forget_loopback_routes(handle: &Handle) {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(LOOPBACK_INDEX)
        .build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
        .output_interface(LOOPBACK_INDEX)
        .build();
    for route in [v4, v6] {
        // A route that does not exist need not be removed.
        let _ = handle.route().del(route).execute().await;
    }
}

/// Stops the kernel's own IPv6 messages and switches IPv6 on. Without link-local addresses the
/// kernel sends no router solicitations. An image may have switched IPv6 off. A failure is ignored:
/// the kernel's own packets are dropped anyway, and adding the address reports a sysctl that is not
/// writable.
fn quiet_ipv6(wanted: bool) {
    if wanted {
        let directory = format!("/proc/sys/net/ipv6/conf/{NAME}");
        let _ = std::fs::write(format!("{directory}/addr_gen_mode"), "1");
        let _ = std::fs::write(format!("{directory}/disable_ipv6"), "0");
    }
}

fn check_io<T>(step: &str, result: io::Result<T>) -> Result<T, RouteError> {
    result.map_err(|source| RouteError::new(step, source))
}
