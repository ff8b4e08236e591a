//! `demo` is a tour from zero and back that needs nothing but the binary.

use std::time::Duration;

use rustix::process::Signal;
use tests::{Client, Launch, PATIENCE, eventually, request};

#[tokio::test]
async fn demo_prints_what_to_try_wakes_and_goes_back_to_zero() {
    let arguments = ["demo", "--listen", "127.0.0.1:0"];
    let mut demo = Launch::without_file().command(arguments).spawn();
    let (address, host) = eventually(PATIENCE, "curl lines are printed", async || {
        assert!(demo.lives(), "{}", demo.stderr());
        let said = demo.stdout() + &demo.stderr();
        said.lines().find_map(curl)
    })
    .await;
    let said = |text: &str| {
        (demo.stdout() + &demo.stderr())
            .to_lowercase()
            .matches(text)
            .count()
    };
    let (waking, ready) = (said("waking"), said("ready"));

    let mut client = Client::connect(address.parse().unwrap()).await;
    client.send(request("GET", &host, "/")).await.expect(200);
    let shown = async || (said("waking") > waking && said("ready") > ready).then_some(());
    eventually(PATIENCE, "waking and ready are shown", shown).await;
    let zero = said("at zero");
    let shown = async || (said("at zero") > zero).then_some(());
    eventually(Duration::from_secs(120), "it is at zero again", shown).await;

    demo.signal(Signal::TERM);
    demo.exit(PATIENCE).await.expect(0);
}

/// Address and host of `… curl … -H 'Host: NAME' http://ADDRESS[/…]`.
fn curl(line: &str) -> Option<(String, String)> {
    let line = &line[line.find("curl ")?..];
    let url = &line[line.find("http://")? + "http://".len()..];
    let address = url.split(['/', ' ', '\'', '"', '?']).next()?;
    let host = line.split_once("Host: ")?.1.split(['\'', '"']).next()?;
    Some((address.to_owned(), host.to_owned()))
}
