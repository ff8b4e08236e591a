//! Which rule a request falls under: what the tables find is what trying every rule finds.

use config::Compiler;
use config::route::{FieldList, Query, find};
use config::snapshot::{PathMatch, Route, Rule, Sticky, Visibility};

use super::configuration::compiled;

/// Lines: `r HOST...` begins a route (`l` a cluster-local one), `p PATH METHOD NAME` adds a rule,
/// `e` one for an exact path, `q HOST PATH METHOD NAME` asks, `i` asks inside.
pub(super) fn routes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let mut compiler = Compiler::default();
    let Ok(compiled) = compiled(&mut compiler, &written(&lines)) else {
        return;
    };
    let routes: Vec<&Route> = compiled.snapshot.routes().map(|route| &**route).collect();
    for words in &lines {
        let [ask @ ("q" | "i"), host, path, rest @ ..] = &words[..] else {
            continue;
        };
        let fields = rest.get(1).map(|name| ((*name).to_owned(), "1".to_owned()));
        let fields = FieldList(fields.into_iter().collect());
        let query = Query {
            host: host.as_bytes(),
            path: path.as_bytes(),
            method: rest.first().unwrap_or(&"GET").as_bytes(),
            fields: &fields,
            internal: *ask == "i",
        };
        let found = find(&compiled.snapshot, &query);
        let found = found.map(|found| rank(found.rule()));
        assert_eq!(found, best(&routes, &query), "{query:?}");
    }
}

/// The file that the lines mean.
fn written(lines: &[Vec<&str>]) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let mut text = String::from("revisions: [{name: r}]\nroutes:\n");
    let mut any = 0;
    for words in lines {
        match &words[..] {
            [kind @ ("r" | "l"), hosts @ ..] => {
                let hosts: Vec<String> = hosts.iter().map(|host| quoted(host)).collect();
                let visibility = if *kind == "l" {
                    "cluster-local"
                } else {
                    "public"
                };
                text.push_str(&format!(
                    " - {{name: r{any}, visibility: {visibility}, hosts: [{}], rules: []}}\n",
                    hosts.join(", ")
                ));
                any += 1;
            }
            [kind @ ("p" | "e"), path, rest @ ..] if text.ends_with("]}\n") => {
                text.truncate(text.len() - "]}\n".len());
                let key = if *kind == "e" { "pathExact" } else { "path" };
                let method = rest.first().filter(|method| !method.is_empty());
                let methods = method.map(|method| quoted(method)).unwrap_or_default();
                let header = rest.get(1).map(|name| format!("{}: ''", quoted(name)));
                text.push_str(&format!(
                    "{{{key}: {}, methods: [{methods}], headers: {{{}}}, traffic: [{{revision: r}}]}}, ]}}\n",
                    quoted(path),
                    header.unwrap_or_default(),
                ));
            }
            _ => {}
        }
    }
    text
}

/// How specific a rule is: the smaller, the earlier it is asked.
type Rank = (
    std::cmp::Reverse<usize>,
    bool,
    std::cmp::Reverse<usize>,
    bool,
);

fn rank(rule: &Rule) -> Rank {
    let text = match &rule.path {
        // "/" matches everything, as nothing does.
        PathMatch::Prefix(text) if &**text == "/" => "",
        path => path.text(),
    };
    (
        std::cmp::Reverse(text.len()),
        matches!(rule.path, PathMatch::Prefix(_)),
        std::cmp::Reverse(rule.headers.len()),
        rule.methods.is_empty(),
    )
}

fn best(routes: &[&Route], query: &Query<'_>) -> Option<Rank> {
    let host = String::from_utf8_lossy(query.host).to_ascii_lowercase();
    let end = match host.starts_with('[') {
        true => host.find(']').map_or(host.len(), |at| at + 1),
        false => host.find(':').unwrap_or(host.len()),
    };
    let host = host[..end].strip_suffix('.').unwrap_or(&host[..end]);
    let serves = |route: &&&Route| query.internal || route.visibility == Visibility::Public;
    let routes: Vec<&Route> = routes.iter().filter(serves).copied().collect();
    let covers = |route: &Route| {
        let covers = route
            .hosts
            .iter()
            .filter_map(|pattern| cover(pattern, host));
        covers.max()
    };
    let widest = routes.iter().filter_map(|route| covers(route)).max()?;
    let of_host = routes.iter().filter(|route| {
        let mut covers = route.hosts.iter().map(|pattern| cover(pattern, host));
        covers.any(|cover| cover == Some(widest))
    });
    let rules = of_host.flat_map(|route| route.rules.iter());
    rules.filter(|rule| matches(rule, query)).map(rank).min()
}

/// How well a pattern covers a host: exact, then by length of the suffix, then `*`.
fn cover(pattern: &str, host: &str) -> Option<usize> {
    if host.len() > 255 {
        return (pattern == "*").then_some(0);
    }
    match pattern.strip_prefix('*') {
        Some("") => Some(0),
        Some(suffix) => {
            (host.ends_with(suffix) && host.len() > suffix.len()).then_some(suffix.len())
        }
        None => (pattern == host).then_some(usize::MAX),
    }
}

fn matches(rule: &Rule, query: &Query<'_>) -> bool {
    let path = match &rule.path {
        PathMatch::Prefix(prefix) => &**prefix == "/" || query.path.starts_with(prefix.as_bytes()),
        PathMatch::Exact(path) => query.path == path.as_bytes(),
    };
    let method = rule.methods.is_empty()
        || rule
            .methods
            .iter()
            .any(|method| method.as_bytes() == query.method);
    let headers = rule.headers.iter().all(|header| match &header.value {
        None => query.fields.first(&header.name).is_some(),
        Some(value) => query.fields.any_equals(&header.name, value.as_bytes()),
    });
    path && method && headers
}

/// `Cookie` fields, a line each.
pub(super) fn cookie(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let sticky = Sticky::Cookie {
        name: "tide".into(),
        ttl: std::time::Duration::from_secs(1),
    };
    let lines = text
        .lines()
        .map(|line| ("Cookie".to_owned(), line.to_owned()));
    let fields = FieldList(lines.collect());
    let key = sticky.key(&fields);
    let pairs = text
        .lines()
        .take(64)
        .flat_map(|line| line.trim().split(';'));
    let mut values = pairs.filter_map(|pair| trim(pair).strip_prefix("tide="));
    let wanted = values.next().map(|value| {
        let inner = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        inner.unwrap_or(value).as_bytes()
    });
    assert_eq!(key, wanted.filter(|value| !value.is_empty()));
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace())
}
