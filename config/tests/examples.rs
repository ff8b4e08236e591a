//! Every file in `examples/` is valid and means what its comments say.

use std::path::PathBuf;

use config::revision::{FairBy, Priority, Wait};
use config::route::{FieldList, Query, explain};
use config::snapshot::PriorityFrom;
use config::{Compiler, Fragment, Origin, Snapshot};

fn examples() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"))
}

fn compile(name: &str) -> Snapshot {
    let path = examples().join(name);
    let text = std::fs::read_to_string(&path).expect("the example can be read");
    let fragment = Fragment {
        origin: Origin::File(name.into()),
        content: config::parse(name, &text),
    };
    let compiled = Compiler::default().apply(vec![fragment]);
    compiled.expect("the example is valid").snapshot
}

/// The first lines of what `explain` says.
fn explained(snapshot: &Snapshot, host: &str, path: &str, internal: bool) -> String {
    let fields = FieldList::default();
    let query = Query {
        host: host.as_bytes(),
        path: path.as_bytes(),
        method: b"GET",
        fields: &fields,
        internal,
    };
    let text = explain(snapshot, &query).to_string();
    let facts = text.lines().take_while(|line| !line.starts_with("why"));
    facts.collect::<Vec<_>>().join(", ")
}

#[test]
fn every_example_compiles() {
    let files = std::fs::read_dir(examples()).expect("there are examples");
    let mut count = 0;
    for file in files {
        let file = file.expect("it is listed");
        // What an example runs lies in a directory beside it.
        if file.path().is_file() {
            compile(&file.file_name().to_string_lossy());
            count += 1;
        }
    }
    assert!(count >= 5);
}

#[test]
fn coffee_splits_seventy_to_thirty() {
    let snapshot = compile("coffee.yaml");
    assert_eq!(
        explained(&snapshot, "coffee.default.example.com", "/", false),
        "route default/coffee, rule 1, target coffee-00001 70% current, \
         target coffee-00002 30% latest, host coffee.default.example.com"
    );
}

#[test]
fn fixed_does_what_its_comments_say() {
    let snapshot = compile("fixed.yaml");
    let said = |host, path| explained(&snapshot, host, path, false);
    assert_eq!(
        said("shop.example.com", "/x"),
        "route default/shop, rule 2, target shop-00001 90%, target shop-00002 10%, host shop.example.com"
    );
    assert_eq!(
        said("a.shop.example.com", "/api/items"),
        "route default/shop, rule 3, target shop-00001 100%, host *.shop.example.com"
    );
    assert_eq!(
        said("canary-shop.default.example.com", "/"),
        "route default/shop, rule 2, target shop-00002 0% canary, host canary-shop.default.example.com"
    );
    assert_eq!(
        said("nobody.example.com", "/"),
        "route default/fallback, rule 1, host *"
    );
    assert_eq!(
        said("stock.default.svc", "/"),
        "route default/fallback, rule 1, host *"
    );
    assert_eq!(
        explained(&snapshot, "stock.default.svc", "/", true),
        "route default/stock, rule 1, target stock-00001 100%, host stock.default.svc"
    );
}

#[test]
fn waiting_does_what_its_comments_say() {
    let snapshot = compile("waiting.yaml");
    let said = |path| explained(&snapshot, "tea.default.example.com", path, false);
    let host = "host tea.default.example.com";
    assert_eq!(
        said("/"),
        format!("route default/tea, rule 1, target tea-00001 100%, target tea-00002 0%, {host}")
    );
    assert_eq!(
        said("/report"),
        format!("route default/tea, rule 2, target tea-00001 100%, {host}")
    );
    let class = |class| Priority::new(class).map(PriorityFrom::Class);
    let routes: Vec<_> = snapshot.routes().collect();
    let [route] = &routes[..] else {
        panic!("not one route: {routes:?}");
    };
    assert!(route.warm_before_shift);
    for (number, goes_first) in [(1, class(5)), (2, class(1))] {
        let rule = route.rules.iter().find(|rule| rule.number == number);
        let urgency = route.urgency_of(rule.expect("there is this rule"));
        assert_eq!(urgency.and_then(|it| it.priority.clone()), goes_first);
    }
    let tea = snapshot.revision_named("default", "tea-00001");
    let tea = tea.expect("it is there");
    assert_eq!(tea.queue.fair_by, FairBy::Header("x-user".into()));
    assert_eq!((tea.queue.wait, tea.queue.per_client), (Wait::Auto, 50));
    let ramp_up = tea.ramp_up.expect("it is not switched off");
    assert_eq!((ramp_up.initial, ramp_up.interval.as_millis()), (2, 500));
    assert_eq!(tea.idle_stream.map(|idle| idle.as_secs()), Some(120));
}
