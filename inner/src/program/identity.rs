//! `--user`: names or numbers, resolved once, in the guest's own user database.

use nix::unistd::{Gid, Group, Uid, User};

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Why `--user` names nobody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// No such user.
    #[error("--user {0}: there is no such user here; use a number for one that has no name")]
    NoUser(String),
    /// No such group.
    #[error("--user: there is no group {0:?} here; use a number for one that has no name")]
    NoGroup(String),
    /// The user database could not be read.
    #[error("--user {0}: cannot read the user database: {1}")]
    Database(String, #[source] nix::Error),
}

impl Identity {
    /// Resolves `USER[:GROUP]`. A user from the database brings its supplementary groups, unless
    /// a group is given: then that one is all it gets, as with `docker run --user`.
    ///
    /// # Errors
    /// A name that is not in the user database.
    pub fn resolve(spec: &str) -> Result<Self, IdentityError> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        let database = |error| IdentityError::Database(spec.into(), error);
        let entry = match user.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)).unwrap_or_default(),
            Err(_) => Some(
                User::from_name(user)
                    .map_err(database)?
                    .ok_or_else(|| IdentityError::NoUser(user.into()))?,
            ),
        };
        let uid = match (&entry, user.parse::<u32>()) {
            (_, Ok(uid)) => uid,
            (Some(entry), Err(_)) => entry.uid.as_raw(),
            (None, Err(_)) => return Err(IdentityError::NoUser(user.into())),
        };
        match group {
            Some(group) => {
                let gid = group_id(group, database)?;
                Ok(Self {
                    uid,
                    gid,
                    groups: vec![gid],
                })
            }
            None => Ok(match entry {
                Some(entry) => Self {
                    uid,
                    gid: entry.gid.as_raw(),
                    groups: supplementary(&entry.name, entry.gid),
                },
                // A bare number without an entry: the group of the same number, and no other.
                None => Self {
                    uid,
                    gid: uid,
                    groups: vec![uid],
                },
            }),
        }
    }
}

fn group_id(
    group: &str,
    database: impl Fn(nix::Error) -> IdentityError,
) -> Result<u32, IdentityError> {
    if let Ok(gid) = group.parse::<u32>() {
        return Ok(gid);
    }
    Group::from_name(group)
        .map_err(database)?
        .map(|entry| entry.gid.as_raw())
        .ok_or_else(|| IdentityError::NoGroup(group.into()))
}

fn supplementary(name: &str, gid: Gid) -> Vec<u32> {
    let listed = std::ffi::CString::new(name)
        .ok()
        .and_then(|name| nix::unistd::getgrouplist(&name, gid).ok());
    match listed {
        Some(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        None => vec![gid.as_raw()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_database() {
        let identity = Identity::resolve("54321:54322").unwrap();
        assert_eq!((identity.uid, identity.gid), (54321, 54322));
        assert_eq!(identity.groups, [54322]);
        let identity = Identity::resolve("54321").unwrap();
        assert_eq!((identity.uid, identity.gid), (54321, 54321));
    }

    #[test]
    fn root_is_found_by_name() {
        let identity = Identity::resolve("root").unwrap();
        assert_eq!((identity.uid, identity.gid), (0, 0));
    }

    #[test]
    fn unknown_names_are_errors() {
        let error = Identity::resolve("no-such-user-here").unwrap_err();
        assert!(error.to_string().contains("no-such-user-here"));
        assert!(Identity::resolve("root:no-such-group").is_err());
        assert!(Identity::resolve("").is_err());
    }
}
