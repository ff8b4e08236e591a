//! What the tests let the gateway start as a `process` revision, or run beside it: the harness's
//! application on `127.0.0.1:$PORT`, and the gRPC service of `grpc.rs`. Its environment says how
//! it behaves:
//!
//! | variable | effect |
//! |---|---|
//! | `PORT` | where to listen; 0 takes a free port; the address is printed |
//! | `TARGET` | its name, in every answer's `x-backend` |
//! | `GATE` | a path: it does not listen before that file exists |
//! | `READY` | a path: `/health` answers 503 before that file exists |
//! | `SAYS` | a line for standard error at the start |
//! | `EXIT` | ends at once with that code |
//! | `PIDS` | a directory: an empty file there is named by its process id |
//! | `CHILD` | starts one more process, which does nothing, for ever |
//! | `CONNECTIONS` | so many at a time; those beyond are reset |
//! | `STAYS` | does not end on SIGTERM |
//!
//! `/crash` ends it at once; `/environment?name=X` tells a variable; every answer tells `pid`,
//! `arguments` and `directory`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::json;
use tests::app::{App, Query};
use tests::{Body, backend, body, grpc};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    tests::process::raise_descriptor_limit();
    if let Some(directory) = variable("PIDS") {
        std::fs::write(
            Path::new(&directory).join(std::process::id().to_string()),
            "",
        )?;
    }
    if std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == "child")
    {
        return std::future::pending().await;
    }
    if variable("STAYS").is_some() {
        let mut terminations = signal(SignalKind::terminate())?;
        tokio::spawn(async move { while terminations.recv().await.is_some() {} });
    }
    if let Some(line) = variable("SAYS") {
        eprintln!("{}", line.to_string_lossy());
    }
    if let Some(code) = variable("EXIT") {
        return Ok(ExitCode::from(code.to_string_lossy().parse::<u8>()?));
    }
    if variable("CHILD").is_some() {
        std::process::Command::new(std::env::current_exe()?)
            .arg("child")
            .spawn()?;
    }
    serve().await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve() -> anyhow::Result<()> {
    let mut app = App::new(&variable("TARGET").unwrap_or_default().to_string_lossy());
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    app.about.insert("pid".into(), json!(std::process::id()));
    app.about.insert("arguments".into(), json!(arguments));
    app.about
        .insert("directory".into(), json!(std::env::current_dir()?));
    let app = Arc::new(app);
    if let Some(gate) = variable("GATE") {
        appeared(Path::new(&gate)).await;
    }
    let port = variable("PORT").unwrap_or_else(|| "0".into());
    let address = SocketAddr::from(([127, 0, 0, 1], port.to_string_lossy().parse()?));
    let listener = backend::listen_on(address);
    announce(listener.local_addr()?);
    let most = match variable("CONNECTIONS") {
        Some(most) => most.to_string_lossy().parse()?,
        None => usize::MAX,
    };
    let handler = move |request| answer(app.clone(), request);
    backend::accept_few(listener, most, false, handler).await;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the tests read the address there")]
fn announce(address: SocketAddr) {
    println!("listening {address}");
}

async fn answer(app: Arc<App>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    if grpc::asked(&request) {
        return Ok(grpc::answer(request).await);
    }
    let text = match request.uri().path() {
        "/health" => {
            let ready = variable("READY").is_none_or(|path| Path::new(&path).exists());
            let status = if ready { 200 } else { 503 };
            return Ok(Response::builder().status(status).body(body::empty())?);
        }
        "/environment" => {
            let name = Query::of(&request)
                .text("name")
                .unwrap_or_default()
                .to_owned();
            variable(&name).unwrap_or_default()
        }
        "/crash" => std::process::abort(),
        _ => return app.answer(request).await,
    };
    Ok(Response::new(body::full(
        text.to_string_lossy().into_owned(),
    )))
}

async fn appeared(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
