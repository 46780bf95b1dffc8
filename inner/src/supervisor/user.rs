//! The user of `--user`, looked up once in the guest's own user database.

use std::ffi::{OsStr, OsString};
use std::io;

use crate::supervisor::passwd::{PasswdEntry, UserDb};

/// The user that the app runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Name, when the database has one.
    pub name: Option<String>,
    /// Home directory.
    pub home: String,
}

/// The reason why `--user` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// /etc/passwd does not have the user.
    #[error("--user {0}: /etc/passwd has no such user; use a number for one that has no name")]
    NoUser(String),
    /// /etc/group does not have the group.
    #[error("--user: /etc/group has no group {0:?}; use a number for one that has no name")]
    NoGroup(String),
    /// /etc/passwd or /etc/group cannot be read.
    #[error("--user {0}: cannot read the user database: {1}")]
    Database(String, #[source] io::Error),
}

impl AppUser {
    /// Looks `USER[:GROUP]` up in /etc/passwd and /etc/group. A user without a group gets the
    /// supplementary groups of the database. A user with a group gets that group alone, as with
    /// `docker run --user`.
    ///
    /// # Errors
    /// The user database does not have the name, or cannot be read.
    pub fn resolve(spec: &str) -> Result<Self, UserError> {
        let database = UserDb::system().map_err(|error| UserError::Database(spec.into(), error))?;
        Self::find(spec, &database)
    }

    fn find(spec: &str, database: &UserDb) -> Result<Self, UserError> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        let user = match user.parse::<u32>() {
            // A number without an entry gets the group of the same number, no other group and no
            // home.
            Ok(uid) => database.user_by_id(uid).unwrap_or(PasswdEntry {
                name: String::new(),
                uid,
                gid: uid,
                home: String::new(),
            }),
            Err(_) => database
                .user_by_name(user)
                .ok_or_else(|| UserError::NoUser(user.into()))?,
        };
        let groups = match group {
            Some(group) => vec![group_id(group, database)?],
            None => database.groups_of(&user),
        };
        Ok(Self {
            uid: user.uid,
            gid: *groups.first().unwrap_or(&user.gid),
            groups,
            name: Some(user.name).filter(|name| !name.is_empty()),
            home: Some(user.home)
                .filter(|home| !home.is_empty())
                .unwrap_or_else(|| "/".into()),
        })
    }

    /// The changes to HOME, USER and LOGNAME. A value other than root's stays. A missing value, and
    /// one of root, would mislead the app and is replaced. `None` removes the variable.
    pub fn environment(
        &self,
        current: impl Fn(&str) -> Option<OsString>,
    ) -> Vec<(&'static str, Option<OsString>)> {
        let of_root = |name: &str, values: &[&str]| {
            current(name).is_none_or(|value| values.iter().any(|root| value == OsStr::new(root)))
        };
        let mut changes = Vec::new();
        if self.uid == 0 {
            return changes;
        }
        // The kernel starts the first process with HOME=/.
        if of_root("HOME", &["", "/", "/root"]) {
            changes.push(("HOME", Some(OsString::from(&self.home))));
        }
        for name in ["USER", "LOGNAME"] {
            if of_root(name, &["", "root"]) {
                changes.push((name, self.name.as_ref().map(OsString::from)));
            }
        }
        changes
    }
}

fn group_id(group: &str, database: &UserDb) -> Result<u32, UserError> {
    match group.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => database
            .group_id(group)
            .ok_or_else(|| UserError::NoGroup(group.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(spec: &str) -> Result<AppUser, UserError> {
        let database = UserDb::new(
            "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/srv/app:/bin/sh\n",
            "root:x:0:\nusers:x:100:\nlogs:x:4:app\n",
        );
        AppUser::find(spec, &database)
    }

    #[test]
    fn numbers_need_no_entry() {
        let user = find("54321:54322").unwrap();
        assert_eq!((user.uid, user.gid), (54321, 54322));
        assert_eq!(user.groups, [54322]);
        let user = find("54321").unwrap();
        assert_eq!((user.uid, user.gid), (54321, 54321));
        assert_eq!((user.name, user.home.as_str()), (None, "/"));
    }

    #[test]
    fn an_entry_brings_its_groups_unless_one_is_given() {
        for spec in ["app", "1000"] {
            let user = find(spec).unwrap();
            assert_eq!((user.uid, user.gid), (1000, 100));
            assert_eq!(user.groups, [100, 4]);
        }
        assert_eq!(find("app:logs").unwrap().groups, [4]);
        assert_eq!(find("app:7").unwrap().gid, 7);
        assert_eq!(find("root").unwrap().uid, 0);
    }

    #[test]
    fn unknown_names_are_errors() {
        let error = find("no-such-user").unwrap_err();
        assert!(error.to_string().contains("no-such-user"));
        assert!(find("root:no-such-group").is_err());
        assert!(find("").is_err());
        assert!(find("root:").is_err());
        assert!(find("-1").is_err());
    }

    #[test]
    fn variables_that_speak_of_root_are_replaced() {
        let app = find("app").unwrap();
        let changes = app.environment(|_| None);
        assert_eq!(changes[0], ("HOME", Some("/srv/app".into())));
        assert_eq!(changes[1], ("USER", Some("app".into())));
        let changes = app.environment(|name| match name {
            "HOME" => Some("/data".into()),
            _ => Some("root".into()),
        });
        let names: Vec<_> = changes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["USER", "LOGNAME"]);
        assert!(find("0").unwrap().environment(|_| None).is_empty());
        let unknown = find("77").unwrap().environment(|_| Some("root".into()));
        assert_eq!(unknown, [("USER", None), ("LOGNAME", None)]);
    }
}
