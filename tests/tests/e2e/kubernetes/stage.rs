//! The stage itself: the API server in the test's process does what clients of a real one rely on.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{carrying, with};
use tests::kubernetes::Api;
use tests::kubernetes::kind::{CONFIG_MAP, INGRESS, Kind, SERVICE};
use tests::kubernetes::objects::{Route, Service, config_map, ingress};
use tests::{Answer, Client, PATIENCE, body, eventually, request, within};

use super::watching::{Watching, get};

const MERGE: &str = "application/merge-patch+json";

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    config_map("default", name, &[("key", "1")])
}

/// A request with a body of JSON.
async fn send(api: &Api, method: &str, target: &str, kind: &'static str, object: &Value) -> Answer {
    let request = with(request(method, "api", target), "content-type", kind);
    let request = carrying(request, body::full(object.to_string()));
    Client::connect(api.address()).await.send(request).await
}

async fn version(api: &Api, kind: Kind) -> String {
    let list = get(api.address(), &kind.collection(""))
        .await
        .expect(200)
        .json();
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn reason(answer: &Answer) -> (u16, String) {
    let status = answer.json();
    assert_eq!(
        (&status["kind"], &status["code"]),
        (&json!("Status"), &json!(answer.status))
    );
    (answer.status, status["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_list_and_then_a_watch_see_each_change_once_and_in_order() {
    let api = Api::start();
    api.create(&map("before")).await;
    let list = get(api.address(), MAPS).await.expect(200).json();
    assert_eq!(names(&list), ["before"]);
    assert_eq!(list["kind"], "ConfigMapList");
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();

    // Changes from before the watch are told as those after it.
    api.create(&map("first")).await;
    let target = format!("{MAPS}?watch=true&resourceVersion={version}");
    let mut watch = Watching::open(api.address(), &target).await;
    for number in 0..500 {
        api.create(&map(&format!("many-{number}"))).await;
    }
    api.patch(
        CONFIG_MAP,
        "default",
        "first",
        &json!({"data": {"key": "2"}}),
    )
    .await;
    // No change, so no event.
    api.patch(
        CONFIG_MAP,
        "default",
        "first",
        &json!({"data": {"key": "2"}}),
    )
    .await;
    api.delete(CONFIG_MAP, "default", "before").await;

    let told = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(watch.told().await, told("ADDED", "first"));
    for number in 0..500 {
        assert_eq!(watch.told().await, told("ADDED", &format!("many-{number}")));
    }
    let modified = watch.next().await.unwrap();
    assert_eq!(modified["object"]["data"]["key"], "2");
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let number = |event: &Value| -> u64 {
        let version = event["object"]["metadata"]["resourceVersion"].as_str();
        version.unwrap().parse().unwrap()
    };
    assert_eq!(number(&deleted), number(&modified) + 1);
}

#[tokio::test]
async fn a_watch_from_a_compacted_version_is_told_gone_and_an_open_one_goes_on() {
    let api = Api::start();
    let old = version(&api, CONFIG_MAP).await;
    let target = format!("{MAPS}?watch=true&resourceVersion={old}");
    let mut open = Watching::open(api.address(), &target).await;
    api.compact();

    let mut late = Watching::open(api.address(), &target).await;
    let event = late.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(late.next().await, None);

    api.create(&map("one")).await;
    assert_eq!(open.told().await, ("ADDED".to_owned(), "one".to_owned()));
    api.expire_watches();
    assert_eq!(open.next().await.unwrap()["object"]["code"], 410);
    assert_eq!(open.next().await, None);

    let fresh = version(&api, CONFIG_MAP).await;
    let target = format!("{MAPS}?watch=true&resourceVersion={fresh}");
    let mut fresh = Watching::open(api.address(), &target).await;
    api.create(&map("two")).await;
    assert_eq!(fresh.told().await.1, "two");
}

#[tokio::test]
async fn pages_of_a_list_hold_every_object_once_and_end_when_compacted() {
    let api = Api::start();
    for number in 0..7 {
        api.create(&map(&format!("map-{number}"))).await;
    }
    let mut all = Vec::new();
    let mut target = format!("{MAPS}?limit=3");
    loop {
        let page = get(api.address(), &target).await.expect(200).json();
        all.extend(names(&page).iter().map(ToString::to_string));
        match page["metadata"]["continue"].as_str() {
            Some(token) => target = format!("{MAPS}?limit=3&continue={token}"),
            None => break,
        }
    }
    assert_eq!(
        all,
        (0..7)
            .map(|number| format!("map-{number}"))
            .collect::<Vec<_>>()
    );

    let page = get(api.address(), &format!("{MAPS}?limit=3")).await.json();
    assert_eq!(page["metadata"]["remainingItemCount"], 4);
    let token = page["metadata"]["continue"].as_str().unwrap();
    api.compact();
    let late = get(api.address(), &format!("{MAPS}?limit=3&continue={token}")).await;
    assert_eq!(reason(&late), (410, "Expired".to_owned()));
}

#[tokio::test]
async fn selectors_choose_and_a_change_of_labels_comes_and_goes() {
    let api = Api::start();
    for (name, team) in [("a", "red"), ("b", "blue")] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"team": team, "app": "x"});
        api.create(&object).await;
    }
    api.create(&map("bare")).await;
    api.create(&config_map("other", "a", &[])).await;
    for (selector, wanted) in [
        ("labelSelector=team%3Dred", vec!["a"]),
        ("labelSelector=team%21%3Dred", vec!["b", "bare"]),
        ("labelSelector=team", vec!["a", "b"]),
        ("labelSelector=%21team", vec!["bare"]),
        (
            "labelSelector=team+in+%28red%2Cblue%29%2Capp%3Dx",
            vec!["a", "b"],
        ),
        ("labelSelector=team+notin+%28red%29", vec!["b", "bare"]),
        ("fieldSelector=metadata.name%3Dbare", vec!["bare"]),
    ] {
        let list = get(api.address(), &format!("{MAPS}?{selector}"))
            .await
            .json();
        assert_eq!(names(&list), wanted, "{selector}");
    }
    let all = get(
        api.address(),
        "/api/v1/configmaps?fieldSelector=metadata.name%3Da",
    )
    .await;
    assert_eq!(names(&all.json()), ["a", "a"]);
    let bad = get(api.address(), &format!("{MAPS}?fieldSelector=spec.x%3D1")).await;
    assert_eq!(bad.status, 400);

    let start = version(&api, CONFIG_MAP).await;
    let target = format!("{MAPS}?watch=1&labelSelector=team%3Dred&resourceVersion={start}");
    let mut watch = Watching::open(api.address(), &target).await;
    let paint = async |team: &str| {
        let changes = json!({"metadata": {"labels": {"team": team}}});
        api.patch(CONFIG_MAP, "default", "b", &changes).await;
    };
    paint("red").await;
    paint("green").await;
    paint("red").await;
    let told: Vec<_> = [watch.told().await, watch.told().await, watch.told().await].into();
    let told = told.iter().map(|(kind, name)| (&**kind, &**name));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("ADDED", "b"), ("DELETED", "b"), ("ADDED", "b")]
    );
}

#[tokio::test]
async fn streaming_lists_say_where_they_end_and_bookmarks_come_to_who_allows_them() {
    let api = Api::start();
    api.create(&map("one")).await;
    let streaming = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &allowWatchBookmarks=true"
    );
    let mut watch = Watching::open(api.address(), &streaming).await;
    assert_eq!(watch.told().await, ("ADDED".to_owned(), "one".to_owned()));
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    let metadata = &end["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(
        metadata["resourceVersion"],
        version(&api, CONFIG_MAP).await.as_str()
    );

    // A change of another kind moves the version of a bookmark.
    api.create(&Service::new("default", "s", "http").object())
        .await;
    api.bookmark();
    let bookmark = watch.next().await.unwrap();
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        version(&api, SERVICE).await.as_str()
    );
    assert_eq!(bookmark["object"]["metadata"].get("annotations"), None);
    // When its second is over: one more, and the end.
    let mut watch = Watching::open(api.address(), &format!("{streaming}&timeoutSeconds=1")).await;
    for kind in ["ADDED", "BOOKMARK", "BOOKMARK"] {
        assert_eq!(watch.told().await.0, kind);
    }
    assert_eq!(watch.next().await, None);

    api.refuse_streaming_lists();
    assert_eq!(
        reason(&get(api.address(), &streaming).await),
        (422, "Invalid".to_owned())
    );
}

#[tokio::test]
async fn patches_merge_replace_and_apply() {
    let api = Api::start();
    let path = format!("{MAPS}/applied");
    let target = format!("{path}?fieldManager=test&force=true");
    const APPLY: &str = "application/apply-patch+yaml";
    let mut object = map("applied");
    send(&api, "PATCH", &target, APPLY, &object)
        .await
        .expect(201);
    object["data"] = json!({"more": "2"});
    let applied = send(&api, "PATCH", &target, APPLY, &object)
        .await
        .expect(200)
        .json();
    assert_eq!(applied["data"], json!({"key": "1", "more": "2"}));
    assert_eq!(send(&api, "PATCH", &path, APPLY, &object).await.status, 422);

    let merged = send(&api, "PATCH", &path, MERGE, &json!({"data": {"key": null}}))
        .await
        .json();
    assert_eq!(merged["data"], json!({"more": "2"}));
    let operations = json!([
        {"op": "test", "path": "/data/more", "value": "2"},
        {"op": "add", "path": "/data/third", "value": "3"},
    ]);
    const OPERATIONS: &str = "application/json-patch+json";
    let patched = send(&api, "PATCH", &path, OPERATIONS, &operations)
        .await
        .expect(200)
        .json();
    assert_eq!(patched["data"]["third"], "3");
    let failed = json!([{"op": "test", "path": "/data/more", "value": "9"}]);
    assert_eq!(
        send(&api, "PATCH", &path, OPERATIONS, &failed).await.status,
        422
    );
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    assert_eq!(
        send(&api, "PATCH", &path, STRATEGIC, &json!({}))
            .await
            .status,
        415
    );
}

#[tokio::test]
async fn a_watch_is_told_of_a_deletion_once_the_last_finalizer_has_gone() {
    let api = Api::start();
    let mut object = ingress("default", "held", &[]);
    object["metadata"]["finalizers"] = json!(["a", "b"]);
    api.create(&object).await;
    let start = version(&api, INGRESS).await;
    let target = format!(
        "{}?watch=true&resourceVersion={start}",
        INGRESS.collection("")
    );
    let mut watch = Watching::open(api.address(), &target).await;

    api.delete(INGRESS, "default", "held").await;
    let leaving = api.get(INGRESS, "default", "held").await.unwrap();
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    let changes = json!({"metadata": {"finalizers": ["b"]}});
    api.patch(INGRESS, "default", "held", &changes).await;
    let more = json!({"metadata": {"finalizers": ["b", "c"]}});
    let answer = send(
        &api,
        "PATCH",
        &INGRESS.path("default", "held"),
        MERGE,
        &more,
    )
    .await;
    assert_eq!(answer.status, 422);
    assert_eq!(watch.told().await.0, "MODIFIED");
    assert_eq!(watch.told().await.0, "MODIFIED");
    api.patch(
        INGRESS,
        "default",
        "held",
        &json!({"metadata": {"finalizers": null}}),
    )
    .await;
    assert_eq!(watch.told().await.0, "DELETED");
    api.until_gone(INGRESS, "default", "held").await;
}

#[tokio::test]
async fn a_stopped_server_refuses_and_comes_back_with_its_objects_on_the_same_port() {
    let api = Api::start();
    api.create(&map("kept")).await;
    let start = version(&api, CONFIG_MAP).await;
    let target = format!("{MAPS}?watch=true&resourceVersion={start}");
    let mut watch = Watching::open(api.address(), &target).await;
    api.until_watches(|open| open == 1).await;
    api.stop().await;
    assert_eq!(watch.next().await, None);
    api.until_watches(|open| open == 0).await;
    assert!(Client::try_connect(api.address()).await.is_err());
    api.create(&map("meanwhile")).await;

    api.restart();
    let mut watch = Watching::open(api.address(), &target).await;
    assert_eq!(watch.told().await.1, "meanwhile");
    api.cut().await;
    assert_eq!(watch.next().await, None);
    let list = get(api.address(), MAPS).await.expect(200).json();
    assert_eq!(names(&list), ["kept", "meanwhile"]);
}

#[tokio::test]
async fn silent_watches_hold_back_and_slow_ones_still_tell_everything() {
    let api = Api::start();
    let target = format!(
        "{MAPS}?watch=true&resourceVersion={}",
        version(&api, CONFIG_MAP).await
    );
    let mut watch = Watching::open(api.address(), &target).await;
    api.silence(true);
    api.create(&map("one")).await;
    // The server has heard of it, and answers others.
    get(api.address(), &format!("{MAPS}/one")).await.expect(200);
    let silent = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    api.slow_watches(Duration::from_millis(1));
    api.silence(false);
    api.create(&map("two")).await;
    assert_eq!(watch.told().await.1, "one");
    assert_eq!(watch.told().await.1, "two");
}

#[tokio::test]
async fn requests_fail_wait_and_are_noted_as_the_test_says() {
    let api = Api::start();
    api.create(&map("one")).await;
    api.fail(2, 429, |seen| seen.verb == "list");
    let busy = get(api.address(), MAPS).await;
    assert_eq!(reason(&busy), (429, "TooManyRequests".to_owned()));
    assert_eq!(busy.header("retry-after"), "1");
    get(api.address(), &format!("{MAPS}/one")).await.expect(200);
    get(api.address(), MAPS).await.expect(429);
    get(api.address(), MAPS).await.expect(200);

    api.forget_requests();
    api.hold(true);
    let held = tokio::spawn(get(api.address(), MAPS));
    api.until_asked("a list", |seen| seen.verb == "list").await;
    assert!(!held.is_finished());
    api.hold(false);
    within("the answer", held).await.unwrap().expect(200);

    let status = json!({"status": {"observedGeneration": 1}});
    api.create(&ingress("default", "hello", &[])).await;
    let path = format!("{}/status", INGRESS.path("default", "hello"));
    send(
        &api,
        "PATCH",
        &format!("{path}?fieldManager=x"),
        MERGE,
        &status,
    )
    .await
    .expect(200);
    let [seen] = api.writes().try_into().unwrap();
    assert_eq!(
        (seen.verb, &*seen.resource, &*seen.name),
        ("patch", "ingresses/status", "hello")
    );
    assert_eq!(
        (&*seen.group, &*seen.query),
        (INGRESS.group, "fieldManager=x")
    );
    assert_eq!(seen.body, status);
}

#[tokio::test]
async fn metadata_alone_and_lists_show_objects_as_real_servers_do() {
    let api = Api::start();
    api.create(&map("one")).await;
    api.create(&ingress("default", "hello", &[])).await;
    let list = get(api.address(), MAPS).await.json();
    assert_eq!(list["items"][0].get("kind"), None);
    let list = get(api.address(), &INGRESS.collection("")).await.json();
    assert_eq!(list["items"][0]["kind"], "Ingress");

    let mut client = Client::connect(api.address()).await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let request = with(request("GET", "api", MAPS), "accept", accept);
    let list = client.send(request).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let item = &list["items"][0];
    assert_eq!(
        (&item["metadata"]["name"], item.get("data")),
        (&json!("one"), None)
    );

    let info = get(api.address(), "/version").await.expect(200).json();
    assert_eq!(info["major"], "1");
    let groups = get(api.address(), "/apis").await.expect(200).json();
    assert!(
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|group| group["name"] == INGRESS.group)
    );
    let resources = get(
        api.address(),
        "/apis/networking.internal.knative.dev/v1alpha1",
    )
    .await;
    let resources = resources.expect(200).json();
    assert_eq!(resources["resources"][1]["name"], "ingresses/status");
}

#[tokio::test]
async fn ten_thousand_ingresses_are_loaded_and_listed() {
    let api = Api::start();
    let count = tests::sized(2_000, 10_000);
    let mut watch = Watching::open(
        api.address(),
        &format!("{}?watch=true", INGRESS.collection("")),
    )
    .await;
    let load = async {
        for number in 0..count {
            let name = format!("hello-{number}");
            let route = Route::new("default", &name).to(&format!("{name}-00001"), 100);
            api.create(&route.ingress()).await;
        }
    };
    let read = async {
        for _ in 0..count {
            assert_eq!(watch.told().await.0, "ADDED");
        }
    };
    tokio::join!(load, read);
    let list = get(api.address(), &INGRESS.collection("")).await.json();
    assert_eq!(names(&list).len(), count);
    eventually(PATIENCE, "the watch is open still", async || {
        (api.watches() == 1).then_some(())
    })
    .await;
}
