//! Many ingresses: all become live, one among them changes alone, and each costs little. Figures are
//! told on standard error; none is a condition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::kubernetes::Api;
use tests::kubernetes::kind::INGRESS;
use tests::kubernetes::objects::{Pods, Revision, Route, Traffic};
use tests::{Backend, Client, Gateway, client::with, eventually, request, sized};

use super::set::{is_ready, launch, until_ready};

/// Long enough for thousands.
const LONG: Duration = Duration::from_secs(120);

/// A service of Knative with one pod, in mode Serve.
async fn service(api: &Api, number: usize, pod: &Backend) {
    let name = format!("s{number}");
    let revision = Revision::new("default", &format!("{name}-00001"));
    api.create_revision(&revision).await;
    let pods = [pod.address];
    let (ready, traffic) = (Pods::ready(&pods), Traffic::Serve(&pods));
    // One by one: to put others aside, all would have to be looked at.
    let slices = revision.private().slices(&ready);
    for object in slices.into_iter().chain(revision.public_slices(traffic)) {
        api.create(&object).await;
    }
    api.create(&route(number).ingress()).await;
}

fn route(number: usize) -> Route {
    Route::new("default", &format!("s{number}")).to(&format!("s{number}-00001"), 100)
}

fn host(number: usize) -> String {
    format!("s{number}.default.example.com")
}

async fn until_all_ready(api: &Api, count: usize) -> Duration {
    let begun = Instant::now();
    eventually(LONG, "all ingresses are ready", async || {
        let all = api.list(INGRESS, "default").await;
        let ready = all.iter().filter(|one| is_ready(one)).count();
        (ready == count).then_some(())
    })
    .await;
    begun.elapsed()
}

fn resident(gateway: &Gateway) -> u64 {
    let status = format!("/proc/{}/status", gateway.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A queue-proxy that is always well.
fn pod() -> Backend {
    Backend::with(
        |request: hyper::Request<hyper::body::Incoming>| async move {
            let probed = request.headers().contains_key("k-network-probe");
            let body = if probed { "queue" } else { "answer" };
            hyper::Response::new(tests::body::full(body.to_owned()))
        },
    )
}

#[tokio::test]
async fn many_ingresses_are_live_and_one_of_them_changes_alone() {
    let count = sized(300, 10_000);
    let pod = pod();
    let api = Api::start();
    let empty = launch(&api).start().await;
    let before = resident(&empty);
    drop(empty);
    for number in 0..count {
        service(&api, number, &pod).await;
    }
    let begun = Instant::now();
    let gateway = Arc::new(launch(&api).start().await);
    let started = begun.elapsed();
    for number in [0, count / 2, count - 1] {
        assert_eq!(
            gateway.get(&host(number), "/").await.expect(200).text(),
            "answer"
        );
    }
    let said = until_all_ready(&api, count).await;
    let after = resident(&gateway);

    // As many again while it runs.
    let more = sized(100, 1_000);
    let begun = Instant::now();
    for number in count..count + more {
        service(&api, number, &pod).await;
    }
    let made = begun.elapsed();
    let told = until_all_ready(&api, count + more).await;

    // One among all, over and over.
    let mut client = Client::connect(gateway.public()).await;
    let mut times = Vec::new();
    for round in 0..20 {
        let number = round * 7 % count;
        let name = format!("s{number}");
        let tag = format!("t{round}");
        let ingress = route(number).tag(&tag, &format!("s{number}-00001"));
        let tagged = ingress.host(&tag);
        let begun = Instant::now();
        api.patch_spec(INGRESS, "default", &name, ingress.ingress()["spec"].clone())
            .await;
        loop {
            let asked = with(request("GET", &tagged, "/"), "x-round", "1");
            if client.send(asked).await.status == 200 {
                break;
            }
            assert!(begun.elapsed() < LONG, "{tagged} is not served");
        }
        times.push(begun.elapsed());
        until_ready(&api, &name).await;
    }
    times.sort_unstable();
    let per = (after.saturating_sub(before) * 1024) / u64::try_from(count).unwrap();
    eprintln!(
        "{count} ingresses: served {started:?} after the start, all said to be ready {said:?} later; {per} bytes each \
         ({before} KiB without any, {after} KiB with all); {more} more: made in {made:?}, ready {told:?} after the last; \
         one changed: served after {:?} (median), {:?} (longest)",
        times[times.len() / 2],
        times[times.len() - 1],
    );
    let list: Vec<Value> = api.list(INGRESS, "default").await;
    assert_eq!(list.len(), count + more);
}
