//! A minimal proxy on pingora: what one would write first, with its pool of kept connections.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

use crate::system;

/// Idle connections it may keep to the upstream.
const POOL: usize = 256;

/// The options of this command.
#[derive(Debug, clap::Args)]
pub struct PingoraArgs {
    /// Listen here.
    #[arg(long, value_name = "ADDR", required_unless_present = "which")]
    listen: Option<SocketAddr>,
    /// Forward to here.
    #[arg(long, value_name = "ADDR", required_unless_present = "which")]
    to: Option<SocketAddr>,
    /// Threads.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
    /// Tell HTTP/2 by its first bytes.
    #[arg(long)]
    h2c: bool,
    /// Say which pingora this is, and end.
    #[arg(long)]
    which: bool,
}

struct Pass {
    to: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.to, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> pingora_core::Result<()> {
        if let Some(client) = session.client_addr().and_then(|client| client.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")?;
        if let Some(host) = session.req_header().headers.get("host") {
            request.insert_header("X-Forwarded-Host", host.clone())?;
        }
        request.insert_header("X-Request-Id", format!("{:032x}", fastrand::u128(..)))?;
        Ok(())
    }
}

/// Runs the command; it ends with a signal.
///
/// # Errors
///
/// Standard output is closed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the command line hands it over"
)]
pub fn main(args: PingoraArgs) -> anyhow::Result<()> {
    use std::io::Write as _;

    let (Some(listen), Some(to), false) = (args.listen, args.to, args.which) else {
        writeln!(std::io::stdout(), "pingora {}", version())?;
        return Ok(());
    };
    system::raise_descriptor_limit();
    let conf = ServerConf {
        threads: usize::from(args.workers),
        upstream_keepalive_pool_size: POOL,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Pass { to });
    if args.h2c
        && let Some(proxy) = service.app_logic_mut()
    {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
    }
    service.add_tcp(&listen.to_string());
    server.add_service(service);
    server.run_forever()
}

/// The version this was built with, from the lock file.
fn version() -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let entry = lock.split("name = \"pingora-proxy\"\nversion = \"").nth(1);
    let version = entry.and_then(|entry| entry.split('"').next());
    version.unwrap_or("unknown")
}
