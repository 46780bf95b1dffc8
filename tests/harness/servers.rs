//! Real servers from the distribution.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, run};
use crate::world::World;

/// nginx on ports 80 and 443 of every address of the internet, HTTP/1.1 and
/// HTTP/2. `PUT /upload/NAME` stores into `www/upload`; `/whoami` tells the
/// protocol and the host that the client asked for.
///
/// # Panics
/// When it does not come up.
pub fn nginx(world: &World) -> Process {
    let dir = world.dir().display().to_string();
    fs::create_dir_all(www(world).join("upload")).expect("own directory");
    let config = format!(
        r#"daemon off;
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {dir}/nginx-body;
    sendfile on;
    server {{
        listen 80; listen [::]:80;
        listen 443 ssl http2; listen [::]:443 ssl http2;
        ssl_certificate {dir}/cert.pem;
        ssl_certificate_key {dir}/key.pem;
        root {dir}/www;
        location /upload/ {{ dav_methods PUT; }}
        location = /whoami {{ return 200 "$server_protocol $host $server_addr\n"; }}
    }}
}}
"#
    );
    let config = world.file("nginx.conf", config);
    let process = world.internet_spawn("nginx", &["nginx", "-c", &config.display().to_string()]);
    world.internet().wait_tcp("203.0.113.10:80");
    process
}

/// The folder of nginx's files.
pub fn www(world: &World) -> PathBuf {
    world.dir().join("www")
}

/// A bare git repository under nginx's root, ready for cloning.
///
/// # Panics
/// When git fails.
pub fn git_repository(world: &World, name: &str) -> String {
    let work = world.dir().join("git-work");
    let bare = www(world).join(name);
    fs::create_dir_all(&work).expect("own directory");
    let git = |words: &[&str], dir: &Path| {
        let mut command = Command::new("git");
        command.current_dir(dir).args(words);
        for (key, value) in [
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "t"),
            ("GIT_AUTHOR_EMAIL", "t@shop.example"),
            ("GIT_COMMITTER_NAME", "t"),
            ("GIT_COMMITTER_EMAIL", "t@shop.example"),
        ] {
            command.env(key, value);
        }
        run(command)
    };
    git(&["init", "-q", "-b", "main", "."], &work);
    for number in 0..40_u32 {
        let body: String = (0..2000).map(|line| format!("{number} {line}\n")).collect();
        fs::write(work.join(format!("file{number}")), body).expect("own directory");
    }
    git(&["add", "."], &work);
    git(&["commit", "-q", "-m", "files"], &work);
    let target = bare.display().to_string();
    git(&["clone", "-q", "--bare", ".", &target], &work);
    git(&["update-server-info"], &bare);
    git(&["rev-parse", "HEAD"], &work).trim().to_owned()
}

/// PostgreSQL on port 5432 of the internet with TLS, user `postgres`, no
/// password.
///
/// # Panics
/// When it does not come up.
pub fn postgres(world: &World) -> Process {
    let script = r#"set -e
dir=$1
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
install -d -o postgres -g postgres -m 0700 "$dir/pg"
install -o postgres -g postgres -m 0600 "$dir/key.pem" "$dir/pg-key.pem"
as() { setpriv --reuid postgres --regid postgres --init-groups -- "$@"; }
as "$bin/initdb" --no-sync -A trust -D "$dir/pg/data" -E UTF8 --locale=C >/dev/null
echo "host all all 0.0.0.0/0 trust" >>"$dir/pg/data/pg_hba.conf"
echo "host all all ::/0 trust" >>"$dir/pg/data/pg_hba.conf"
exec setpriv --reuid postgres --regid postgres --init-groups -- "$bin/postgres" \
    -D "$dir/pg/data" -c listen_addresses='*' -c unix_socket_directories= \
    -c fsync=off -c ssl=on -c ssl_cert_file="$dir/cert.pem" -c ssl_key_file="$dir/pg-key.pem"
"#;
    let dir = world.dir().display().to_string();
    let process = world.internet_spawn("postgres", &["sh", "-c", script, "sh", &dir]);
    world.internet().wait_tcp("203.0.113.10:5432");
    process
}

/// Redis on port 6379 of the internet.
///
/// # Panics
/// When it does not come up.
pub fn redis(world: &World) -> Process {
    let dir = world.dir().display().to_string();
    let process = world.internet_spawn(
        "redis",
        &[
            "redis-server",
            "--port",
            "6379",
            "--bind",
            "0.0.0.0",
            "::",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &dir,
        ],
    );
    world.internet().wait_tcp("203.0.113.10:6379");
    process
}

/// The QUIC test server on port 4433/udp of one address.
///
/// # Panics
/// When it does not come up.
pub fn quic(world: &World, executable: &Path, address: &str) -> Process {
    let path = |name: &str| world.dir().join(name).display().to_string();
    let executable = executable.display().to_string();
    let mut process = world.internet_spawn(
        "quic",
        &[
            &executable,
            "serve",
            address,
            &path("cert.pem"),
            &path("key.pem"),
        ],
    );
    process.wait_for("ready", Duration::from_secs(10));
    process
}

/// The words that start nginx in a guest, at 127.0.0.1:8080 with these further words of `listen`.
/// nginx serves `www` of the world's directory: 8 MB at `/blob` and a line at each of `/0` to `/9`;
/// what is put below `/up/` comes to the app's own directory.
///
/// # Panics
/// When the files can't be written.
pub fn guest_nginx(world: &World, listen: &str) -> Vec<String> {
    let www = www(world);
    fs::create_dir_all(&www).expect("own directory");
    let blob: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 253) as u8).collect();
    fs::write(www.join("blob"), blob).expect("own directory");
    for number in 0..10 {
        let line = format!("this is {number}\n");
        fs::write(www.join(number.to_string()), line).expect("own directory");
    }
    let dir = world.scratch().display().to_string();
    let config = format!(
        "daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{ access_log off; client_max_body_size 0; keepalive_requests 100000; sendfile on;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:8080 {listen}; root {};
    location /up/ {{ root {dir}; dav_methods PUT; create_full_put_path on; }} }} }}
",
        www.display()
    );
    let config = world.file("guest-nginx.conf", config).display().to_string();
    ["nginx", "-e", "stderr", "-c", &config]
        .map(str::to_owned)
        .into()
}
