//! Makes the identity under which the guest connects to the host.

use std::io;

use odyn_proto::{GuestName, Identity, RunId};

/// The identity of this run: a name, and a random id of the run. The name is that of the policy,
/// else that of the machine.
///
/// # Errors
/// The kernel gave no random numbers.
pub fn own(policy_name: Option<&str>) -> io::Result<Identity> {
    let name = match policy_name {
        Some(name) => GuestName::nearest(name),
        None => GuestName::nearest(&host_name()),
    };
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)?;
    Ok(Identity {
        name,
        run: RunId::new(bits),
    })
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_differ_and_the_policys_name_is_ours() {
        let one = own(Some("shop front")).unwrap();
        let two = own(Some("shop front")).unwrap();
        assert_eq!(one.name.as_str(), "shop-front");
        assert_ne!(one.run, two.run);
        assert!(own(None).is_ok());
    }
}
