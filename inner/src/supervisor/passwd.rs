//! Reads /etc/passwd and /etc/group. A static executable has no NSS to ask.

use std::io;
use std::path::Path;

/// The guest's users and groups.
#[derive(Debug, Default)]
pub(super) struct UserDb {
    passwd: String,
    group: String,
}

/// A line of /etc/passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PasswdEntry {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

impl UserDb {
    /// Reads the database of this root file system. A missing file has no entries.
    pub(super) fn system() -> io::Result<Self> {
        Ok(Self {
            passwd: read(Path::new("/etc/passwd"))?,
            group: read(Path::new("/etc/group"))?,
        })
    }

    #[cfg(test)]
    pub(super) fn new(passwd: &str, group: &str) -> Self {
        Self {
            passwd: passwd.into(),
            group: group.into(),
        }
    }

    pub(super) fn user_by_name(&self, name: &str) -> Option<PasswdEntry> {
        self.users().find(|user| user.name == name)
    }

    pub(super) fn user_by_id(&self, uid: u32) -> Option<PasswdEntry> {
        self.users().find(|user| user.uid == uid)
    }

    pub(super) fn group_id(&self, name: &str) -> Option<u32> {
        self.groups()
            .find_map(|(group, gid, _)| (group == name).then_some(gid))
    }

    /// The user's own group first, then each group that lists the user, without repetition.
    pub(super) fn groups_of(&self, user: &PasswdEntry) -> Vec<u32> {
        let mut groups = vec![user.gid];
        for (_, gid, mut members) in self.groups() {
            if members.any(|member| member == user.name) && !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        groups
    }

    fn users(&self) -> impl Iterator<Item = PasswdEntry> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            Some(PasswdEntry {
                name: name.into(),
                uid: fields.nth(1)?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
                home: fields.nth(1).unwrap_or_default().into(),
            })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, impl Iterator<Item = &str>)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default();
            let members = members.split(',').map(str::trim);
            Some((name, gid, members.filter(|member| !member.is_empty())))
        })
    }
}

fn read(path: &Path) -> io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("{}: {error}", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment: with: colons\n\
        \n\
        broken\n\
        app:x:1000:100:An App,,,:/srv/app:/bin/false\n\
        short:x:1001:1001\n\
        +::::::\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:app\nlogs:x:4:syslog,app\nvideo:x:44: app , x\n\
        bad:x:many:app\nempty:x:7:\n";

    #[test]
    fn users_by_name_and_number() {
        let db = UserDb::new(PASSWD, GROUP);
        let app = db.user_by_name("app").unwrap();
        assert_eq!(
            (app.uid, app.gid, app.home.as_str()),
            (1000, 100, "/srv/app")
        );
        assert_eq!(db.user_by_id(1000), Some(app));
        assert_eq!(db.user_by_name("short").unwrap().home, "");
        for unknown in ["", "broken", "+", "# a comment", "ap"] {
            assert_eq!(db.user_by_name(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn groups_of_a_user_each_once() {
        let db = UserDb::new(PASSWD, GROUP);
        let app = db.user_by_name("app").unwrap();
        assert_eq!(db.groups_of(&app), [100, 4, 44]);
        let nameless = PasswdEntry {
            name: String::new(),
            uid: 9,
            gid: 9,
            home: String::new(),
        };
        assert_eq!(db.groups_of(&nameless), [9]);
        assert_eq!(db.group_id("logs"), Some(4));
        assert_eq!(db.group_id("bad"), None);
        assert_eq!(db.group_id(""), None);
    }
}
