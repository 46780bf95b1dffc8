//! The table of all checks, in the order of the report.

use serde::{Deserialize, Serialize};

use super::{Entry, Wanted};
use crate::doctor::check::Need;

macro_rules! checks {
    ($($id:ident = $name:literal: $entry:expr;)*) => {
        /// The name of a check in reports and between doctor's processes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each is described by its entry")]
        pub enum Id {
            $(#[serde(rename = $name)] $id,)*
        }

        impl Id {
            /// All checks in the order of the report.
            pub const ALL: [Id; [$($name),*].len()] = [$(Id::$id),*];

            /// The check's name in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Id::$id => $name,)*
                }
            }

            /// The catalogue's entry of the check.
            pub fn entry(self) -> &'static Entry {
                match self {
                    $(Id::$id => {
                        static ENTRY: Entry = $entry;
                        &ENTRY
                    })*
                }
            }
        }
    };
}

checks! {
    NfTables = "nf-tables": nftables(
            "nf_tables with tables of family inet",
            "the rules that capture",
            &[
                wanted(&["NETFILTER"]),
                // Family inet covers both families: a kernel built without IPv6 has no such tables.
                wanted(&["IPV6"]),
                wanted(&["NF_TABLES"]),
                wanted(&["NF_TABLES_INET"]),
            ],
        );
    NftNat = "nft-nat": Entry {
            since: Some((5, 2)),
            ..nftables(
                "nat chain in the output hook, dnat",
                "redirecting TCP and DNS to our listeners; the original destination (SO_ORIGINAL_DST)",
                &[
                    wanted(&["NF_CONNTRACK"]),
                    brought(&["NF_NAT"], &["NFT_NAT"]),
                    wanted(&["NFT_NAT"]),
                ],
            )
        };
    NftRoute = "nft-route": Entry {
            since: Some((5, 2)),
            ..nftables(
                "route chain in the output hook, meta mark set",
                "routing UDP back to lo",
                &[
                    brought(&["NF_TABLES_IPV4"], &["NF_TABLES_INET"]),
                    brought(&["NF_TABLES_IPV6"], &["NF_TABLES_INET"]),
                ],
            )
        };
    NftFib = "nft-fib": nftables(
            "fib daddr type",
            "distinguishing local destinations from others",
            &[brought(
                &["NFT_FIB_INET"],
                &["NFT_FIB_IPV4", "NFT_FIB_IPV6", "NFT_FIB_INET"],
            )],
        );
    NftReject = "nft-reject": nftables(
            "reject in tables of family inet",
            "answering packets that are not carried with an error at once",
            &[brought(&["NFT_REJECT_INET"], &["NFT_REJECT"])],
        );
    NftTproxy = "nft-tproxy": nftables(
            "tproxy",
            "UDP with its original destination",
            &[wanted(&["NFT_TPROXY"])],
        );
    NftLog = "nft-log": Entry {
            optional: true,
            ..nftables(
                "log group (NFLOG)",
                "audit records of rejected packets; without it they are rejected unrecorded",
                &[wanted(&["NFT_LOG"]), wanted(&["NETFILTER_NETLINK_LOG"])],
            )
        };
    RoutingRules = "routing-rules": nftables(
            "policy routing for IPv4 and IPv6",
            "the route that makes captured UDP local",
            &[
                brought(
                    &["IP_MULTIPLE_TABLES"],
                    &["IP_ADVANCED_ROUTER", "IP_MULTIPLE_TABLES"],
                ),
                wanted(&["IPV6_MULTIPLE_TABLES"]),
            ],
        );
    NftCapture = "nft-capture": nftables(
            "the whole capture by nftables, installed in a namespace of its own",
            "routes, sockets and rules together",
            &[],
        );
    Tun = "tun": plain(
            "TUN devices",
            &[Need::Tun],
            "capture on kernels without nf_tables",
            &[wanted(&["TUN"])],
        );
    OtherInterfaces = "other-interfaces": plain(
            "no interface but lo has routes",
            &[Need::Tun],
            "all traffic takes the routes of the TUN device",
            &[],
        )
        .hint("remove the routes of the other interfaces, or capture by nftables");
    Loopback = "loopback": plain(
            "the interface lo",
            &[Need::Nftables, Need::App],
            "where captured traffic goes, and the app's own localhost",
            &[wanted(&["NET"]), wanted(&["INET"])],
        );
    Ipv6 = "ipv6": Entry {
            optional: true,
            ..plain(
                "IPv6",
                &[Need::Nftables, Need::Tun],
                "IPv6 flows; with ipv6.disable=1 the app has IPv4 alone",
                &[wanted(&["IPV6"])],
            )
        };
    NetAdmin = "net-admin": plain(
            "CAP_NET_ADMIN",
            &[Need::Nftables, Need::Tun],
            "rules, routes, addresses, transparent sockets",
            &[],
        )
        .hint("start odyn-net as root, or with CAP_NET_ADMIN");
    NetRaw = "net-raw": plain(
            "CAP_NET_RAW",
            &[Need::Nftables, Need::Tun],
            "ICMP errors for refused datagrams",
            &[],
        )
        .hint("start odyn-net as root, or with CAP_NET_RAW");
    Proc = "proc": plain(
            "/proc",
            &[Need::App],
            "starting the app (/proc/self/exe)",
            &[wanted(&["PROC_FS"])],
        )
        .hint("mount -t proc proc /proc");
    Seccomp = "seccomp": plain(
            "seccomp filters",
            &[Need::App],
            "keeping the app off AF_VSOCK and io_uring",
            &[brought(&["SECCOMP_FILTER"], &["SECCOMP", "SECCOMP_FILTER"])],
        );
    Runtime = "runtime": plain(
            "epoll, eventfd, futex, Unix sockets",
            &[Need::App],
            "odyn-net itself",
            &[
                wanted(&["EPOLL"]),
                wanted(&["EVENTFD"]),
                wanted(&["FUTEX"]),
                wanted(&["UNIX"]),
            ],
        );
    SetUser = "set-user": Entry {
            optional: true,
            ..plain(
                "changing the user (CAP_SETUID, CAP_SETGID)",
                &[Need::App],
                "--user",
                &[wanted(&["MULTIUSER"])],
            )
        }
        .hint("start odyn-net as root, or leave --user out");
    SysAdmin = "sys-admin": Entry {
            optional: true,
            ..plain(
                "CAP_SYS_ADMIN",
                &[Need::App],
                "an app that is root (no --user): the kernel's settings are made read-only for it",
                &[],
            )
        }
        .hint("give --user, or start odyn-net with CAP_SYS_ADMIN");
    ResolvConf = "resolv-conf": Entry {
            optional: true,
            ..plain(
                "/etc/resolv.conf",
                &[Need::App],
                "libc's resolver; any server in it will do, as port 53 is captured for all",
                &[],
            )
        }
        .hint("without the file libc asks 127.0.0.1, which is captured too");
    OpenFiles = "open-files": Entry {
            optional: true,
            ..plain(
                "room for open files",
                &[Need::App],
                "flows: each holds descriptors; odyn-net raises its soft limit to the hard one",
                &[],
            )
        }
        .hint("raise the hard limit of open files (ulimit -Hn)");
    Vsock = "vsock": plain(
            "AF_VSOCK",
            &[Need::Vsock],
            "the link to the host",
            &[wanted(&["VSOCKETS"])],
        );
    VsockCid = "vsock-cid": plain(
            "a vsock transport to the hypervisor",
            &[Need::Vsock],
            "the link to the host",
            &[brought(
                &["VIRTIO_VSOCKETS", "VMWARE_VMCI_VSOCKETS", "HYPERV_VSOCKETS"],
                &["VIRTIO_VSOCKETS"],
            )],
        )
        .hint("give the machine a vsock device and a CID (Nitro enclaves have one)");
    VsockLoopback = "vsock-loopback": Entry {
            optional: true,
            ..plain(
                "vsock loopback (CID 1)",
                &[Need::Vsock],
                "host and guest in one machine, as in tests",
                &[wanted(&["VSOCKETS_LOOPBACK"])],
            )
        };
    Nsm = "nsm": plain(
            "/dev/nsm, the Nitro Security Module",
            &[Need::Kms],
            "attestation documents, entropy",
            &[wanted(&["NSM"])],
        )
        .hint("only in a Nitro enclave; kernels before 6.8 need the vendor's nsm.ko");
    Namespaces = "namespaces": plain(
            "network and user namespaces",
            &[Need::Simulate],
            "a guest on a developer's machine, and the trials of this command",
            &[
                wanted(&["NAMESPACES"]),
                wanted(&["NET_NS"]),
                wanted(&["USER_NS"]),
            ],
        )
        .hint(
            "as root, or with the sysctls user.max_user_namespaces (not 0), \
                 kernel.unprivileged_userns_clone (1), \
                 kernel.apparmor_restrict_unprivileged_userns (0)",
        );
}

const fn plain(
    title: &'static str,
    needed_by: &'static [Need],
    needed_for: &'static str,
    options: &'static [Wanted],
) -> Entry {
    Entry {
        title,
        needed_by,
        optional: false,
        needed_for,
        options,
        since: None,
        hint: "",
    }
}

const fn nftables(
    title: &'static str,
    needed_for: &'static str,
    options: &'static [Wanted],
) -> Entry {
    plain(title, &[Need::Nftables], needed_for, options)
}

const fn wanted(option: &'static [&'static str]) -> Wanted {
    Wanted {
        any: option,
        ask: option,
    }
}

/// Options `any` that the options `ask` bring or enable.
const fn brought(any: &'static [&'static str], ask: &'static [&'static str]) -> Wanted {
    Wanted { any, ask }
}
