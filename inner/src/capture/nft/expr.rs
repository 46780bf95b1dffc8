//! The nftables expressions that `nftnl` has no type for: `tproxy`, `fib` and `log`.
//!
//! This is the only module of the workspace with `unsafe` code for netfilter. Each expression is
//! allocated by libnftnl, given plain numbers, and handed to `Rule::add_expr`, whose rule frees it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::process::abort;
use std::ptr::NonNull;

use nftnl::expr::{Expression, Register};
use nftnl::{ProtoFamily, Rule};
use nftnl_sys as sys;

/// `fib daddr type`: the route type (RTN_*) of the destination, into a register.
pub(super) struct DestinationType {
    pub(super) register: Register,
}

/// `tproxy ip|ip6 to ADDRESS:PORT`, both taken from registers.
pub(super) struct Tproxy {
    pub(super) family: ProtoFamily,
    pub(super) address: Register,
    pub(super) port: Register,
}

/// `log group N snaplen N`.
pub(super) struct Log {
    pub(super) group: u16,
    pub(super) snaplen: u32,
}

// From linux/netfilter/nf_tables.h.
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;

impl Expression for DestinationType {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        let mut expr = Owned::new(c"fib");
        expr.set_u32(sys::NFTNL_EXPR_FIB_DREG, self.register.to_raw());
        expr.set_u32(sys::NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        expr.set_u32(sys::NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
        expr.0
    }
}

impl Expression for Tproxy {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        let mut expr = Owned::new(c"tproxy");
        expr.set_u32(sys::NFTNL_EXPR_TPROXY_FAMILY, self.family as u32);
        expr.set_u32(sys::NFTNL_EXPR_TPROXY_REG_ADDR, self.address.to_raw());
        expr.set_u32(sys::NFTNL_EXPR_TPROXY_REG_PORT, self.port.to_raw());
        expr.0
    }
}

impl Expression for Log {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        let mut expr = Owned::new(c"log");
        expr.set_u16(sys::NFTNL_EXPR_LOG_GROUP, self.group);
        expr.set_u32(sys::NFTNL_EXPR_LOG_SNAPLEN, self.snaplen);
        // Reports each packet at once: by default the kernel collects a hundred or waits a second.
        expr.set_u16(sys::NFTNL_EXPR_LOG_QTHRESHOLD, 1);
        expr.0
    }
}

/// An expression that no rule has taken yet.
struct Owned(NonNull<sys::nftnl_expr>);

impl Owned {
    fn new(name: &'static CStr) -> Self {
        // SAFETY: `name` is a NUL-terminated string of static lifetime; libnftnl reads it only
        // to look up the expression's operations.
        let raw = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
        match NonNull::new(raw) {
            Some(expr) => Self(expr),
            // Out of memory, or a libnftnl without this expression: nftnl itself aborts here too,
            // and it happens at start-up, before any app runs.
            None => abort(),
        }
    }

    fn set_u32(&mut self, attribute: u32, value: u32) {
        // SAFETY: `self.0` came from nftnl_expr_alloc and was not freed; libnftnl copies the value.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attribute as u16, value) }
    }

    fn set_u16(&mut self, attribute: u32, value: u16) {
        // SAFETY: as in set_u32; the attribute is 16 bits wide.
        unsafe { sys::nftnl_expr_set_u16(self.0.as_ptr(), attribute as u16, value) }
    }
}
