//! A pair of nginx as stream proxies; and nginx as the app in the guest.

use std::fmt::Write as _;
use std::path::Path;

use odyn_tests::namespace::Namespace;
use odyn_tests::process::Process;

use super::between::Link;
use super::pair::{End, Plan};
use super::{Contender, Family, Running, lacks, text};
use crate::stage::{HTTP, Stage, file_limit};

/// Debian has the stream module as a file of its own.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(crate) struct Nginx;

impl Contender for Nginx {
    fn name(&self) -> &str {
        "nginx"
    }

    fn family(&self) -> Family {
        Family::Pair
    }

    fn missing(&self) -> Option<String> {
        let module = match Path::new(MODULE).exists() {
            true => None,
            false => Some(format!("no {MODULE} (Debian package libnginx-mod-stream)")),
        };
        lacks("nginx", "nginx-light").or(module)
    }

    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running> {
        let plan = Plan::new(stage, self.name(), number, Link::Unix)?;
        let halves = [
            ("a", plan.guest_ends(), &plan.guest),
            ("b", plan.host_ends(), stage.world.host()),
        ];
        let [a, b] = halves.map(|(half, ends, namespace)| {
            let mut servers = String::new();
            for (from, to) in &ends {
                let (from, to) = (address(from), address(to));
                let _ = writeln!(
                    servers,
                    "  server {{ listen {from} backlog=4096; proxy_pass {to}; }}"
                );
            }
            let head = format!("load_module {MODULE};\nworker_processes auto;\n");
            let body =
                format!("stream {{\n  proxy_buffer_size 64k;\n  proxy_timeout 1h;\n  proxy_half_close on;\n{servers}}}\n");
            spawn(stage, namespace, &plan.dir, half, &head, &body)
        });
        let (a, b) = (a?, b?);
        plan.run(stage, vec![a], vec![b])
    }
}

fn address(end: &End<'_>) -> String {
    match end {
        End::Tcp(address) => (*address).to_owned(),
        End::Link(between) => format!("unix:{}", text(&between.socket)),
    }
}

fn spawn(
    stage: &Stage,
    namespace: &Namespace,
    dir: &Path,
    name: &str,
    head: &str,
    body: &str,
) -> anyhow::Result<Process> {
    let files = file_limit().min(200_000);
    let dir_text = dir.display();
    let config = format!(
        "{head}daemon off;\nuser root;\npid {dir_text}/{name}.pid;\nerror_log stderr error;\n\
         worker_rlimit_nofile {files};\n\
         events {{ worker_connections {files}; multi_accept on; }}\n{body}"
    );
    let path = dir.join(format!("{name}.conf"));
    std::fs::write(&path, config)?;
    Ok(stage.spawn(namespace, "nginx", &["nginx", "-c", &text(&path)], &[]))
}

/// The app in the guest: answers 1 KiB over HTTP/1.1 and, on the second port, HTTP/2.
pub(crate) fn app(stage: &Stage, namespace: &Namespace) -> anyhow::Result<Process> {
    let dir = stage.dir("app")?;
    let [http, http2] = HTTP;
    let body = format!(
        "http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  \
         client_body_temp_path {0}/t;\n  server {{\n    listen {http} backlog=4096;\n    \
         listen {http2} http2 backlog=4096;\n    location / {{ return 200 \"{1}\"; }}\n  }}\n}}\n",
        dir.display(),
        "x".repeat(1024)
    );
    let process = spawn(
        stage,
        namespace,
        &dir,
        "app",
        "worker_processes 1;\n",
        &body,
    )?;
    namespace.wait_tcp(&format!("127.0.0.1:{http2}"));
    Ok(process)
}
