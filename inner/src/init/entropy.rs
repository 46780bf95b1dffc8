//! Seeds the kernel's random number generator in an enclave.
//!
//! An enclave has no devices whose noise would seed it, and the parent instance could choose the
//! little that there is. The Nitro Secure Module has a generator of its own.

#[allow(unsafe_code)]
mod credit;

use std::io;
use std::path::Path;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;

use crate::init::InitReport;

const NSM: &str = "/dev/nsm";

/// A source of random bytes other than the kernel.
trait Source {
    fn draw(&self) -> io::Result<Vec<u8>>;
}

struct Nsm;

impl Source for Nsm {
    fn draw(&self) -> io::Result<Vec<u8>> {
        let device = driver::nsm_init();
        if device < 0 {
            return Err(io::Error::other(format!("cannot open {NSM}")));
        }
        let answer = driver::nsm_process_request(device, Request::GetRandom);
        driver::nsm_exit(device);
        match answer {
            Response::GetRandom { random } if !random.is_empty() => Ok(random),
            Response::Error(code) => Err(io::Error::other(format!("NSM answers {code:?}"))),
            _ => Err(io::Error::other("NSM gave an unexpected answer")),
        }
    }
}

/// Seeds the kernel's generator from the NSM, where there is one.
pub(super) fn seed(report: &mut InitReport) {
    if Path::new(NSM).exists() {
        seed_from(&Nsm, report);
    }
}

fn seed_from(source: &dyn Source, report: &mut InitReport) {
    match source.draw().and_then(|bytes| credit::add(&bytes)) {
        Ok(count) => report.done(format!("seeded the kernel's generator with {count} bytes")),
        Err(error) => report.missed("the kernel's generator is not seeded from NSM", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Vec<u8>);

    impl Source for Fake {
        fn draw(&self) -> io::Result<Vec<u8>> {
            match self.0.is_empty() {
                true => Err(io::Error::other("no module")),
                false => Ok(self.0.clone()),
            }
        }
    }

    fn lines(source: &Fake) -> Vec<(bool, String)> {
        let mut report = InitReport::default();
        seed_from(source, &mut report);
        report.lines
    }

    /// Adding bytes that are publicly known does no harm to a generator that is already seeded: the
    /// kernel mixes them in, and only credits what the caller claims.
    #[test]
    fn the_kernel_takes_it() {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("ODYN_REQUIRE_ROOT").is_none(),
                "needs root"
            );
            return;
        }
        for length in [1, 32, 255, 256] {
            let said = lines(&Fake(vec![7; length]));
            assert_eq!(said.len(), 1);
            assert!(said[0].0, "{said:?}");
            assert!(said[0].1.contains(&format!(" {length} bytes")), "{said:?}");
        }
    }

    #[test]
    fn a_module_that_fails_is_one_line() {
        let said = lines(&Fake(Vec::new()));
        assert_eq!(said.len(), 1);
        assert!(!said[0].0 && said[0].1.contains("no module"), "{said:?}");
    }
}
