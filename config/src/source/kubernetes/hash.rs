//! The hash of an ingress, by which Knative's probers know which specification a gateway serves:
//! SHA-256 over the specification as Go's `encoding/json` writes it, the namespace and the name.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ingress::{HeaderMatch, Path, Rule, Spec, Split, Tls};

/// The hash as probes carry it: 64 hexadecimal digits. `json` is [`go_json`] of a specification
/// with its defaults.
pub(super) fn hash(json: &str, namespace: &str, name: &str) -> Box<str> {
    let mut context = Context::new(&SHA256);
    for part in [json, namespace, name] {
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let digits = digest
        .as_ref()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    digits.collect::<String>().into()
}

/// The specification as Go writes it: no spaces, fields in the order of the type, empty ones left
/// out where the type says so, maps sorted by the bytes of their keys.
pub(super) fn go_json(spec: &Spec) -> String {
    let mut json = Json::default();
    json.spec(spec);
    json.text
}

#[derive(Default)]
struct Json {
    text: String,
    /// Whether the object or list that is open has no member yet.
    first: bool,
}

impl Json {
    fn object(&mut self, members: impl FnOnce(&mut Json)) {
        self.nested('{', '}', members);
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Json, &T)) {
        self.nested('[', ']', |json| {
            for item in items {
                json.comma();
                each(json, item);
            }
        });
    }

    fn nested(&mut self, open: char, close: char, inside: impl FnOnce(&mut Json)) {
        self.text.push(open);
        self.first = true;
        inside(self);
        self.text.push(close);
        self.first = false;
    }

    fn comma(&mut self) {
        if !self.first {
            self.text.push(',');
        }
        self.first = false;
    }

    fn key(&mut self, name: &str) -> &mut Json {
        self.comma();
        self.string(name);
        self.text.push(':');
        self
    }

    fn spec(&mut self, spec: &Spec) {
        self.object(|json| {
            json.list_unless_empty("tls", &spec.tls, Json::tls);
            json.list_unless_empty("rules", &spec.rules, Json::rule);
            json.string_unless_empty("httpOption", &spec.http_option);
        });
    }

    fn tls(&mut self, tls: &Tls) {
        self.object(|json| {
            json.list_unless_empty("hosts", &tls.hosts, |json, host| json.string(host));
            json.string_unless_empty("secretName", &tls.secret_name);
            json.string_unless_empty("secretNamespace", &tls.secret_namespace);
        });
    }

    fn rule(&mut self, rule: &Rule) {
        self.object(|json| {
            json.list_unless_empty("hosts", &rule.hosts, |json, host| json.string(host));
            json.string_unless_empty("visibility", &rule.visibility);
            if let Some(http) = &rule.http {
                json.key("http").object(|json| {
                    json.key("paths")
                        .list_or_null(http.paths.as_deref(), Json::path);
                });
            }
        });
    }

    fn path(&mut self, path: &Path) {
        self.object(|json| {
            json.string_unless_empty("path", &path.path);
            json.string_unless_empty("rewriteHost", &path.rewrite_host);
            json.map_unless_empty("headers", &path.headers, |json, HeaderMatch { exact }| {
                json.object(|json| json.key("exact").string(exact));
            });
            json.key("splits")
                .list_or_null(path.splits.as_deref(), Json::split);
            json.headers(&path.append_headers);
        });
    }

    fn split(&mut self, split: &Split) {
        self.object(|json| {
            json.key("serviceNamespace")
                .string(&split.service_namespace);
            json.key("serviceName").string(&split.service_name);
            json.key("servicePort");
            match &split.service_port {
                IntOrString::Int(number) => json.number(i64::from(*number)),
                IntOrString::String(name) => json.string(name),
            }
            if split.percent != 0 {
                json.key("percent").number(split.percent);
            }
            json.headers(&split.append_headers);
        });
    }

    fn headers(&mut self, headers: &BTreeMap<String, String>) {
        self.map_unless_empty("appendHeaders", headers, |json, value| json.string(value));
    }

    fn map_unless_empty<T>(
        &mut self,
        name: &str,
        map: &BTreeMap<String, T>,
        each: impl Fn(&mut Json, &T),
    ) {
        if !map.is_empty() {
            self.key(name).object(|json| {
                for (key, value) in map {
                    each(json.key(key), value);
                }
            });
        }
    }

    fn list_unless_empty<T>(&mut self, name: &str, items: &[T], each: impl Fn(&mut Json, &T)) {
        if !items.is_empty() {
            self.key(name).list(items, each);
        }
    }

    fn list_or_null<T>(&mut self, items: Option<&[T]>, each: impl Fn(&mut Json, &T)) {
        match items {
            Some(items) => self.list(items, each),
            None => self.text.push_str("null"),
        }
    }

    fn string_unless_empty(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.key(name).string(value);
        }
    }

    fn number(&mut self, number: i64) {
        self.text.push_str(&number.to_string());
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for char in text.chars() {
            match char {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                // Go escapes what could end a script in HTML or JavaScript.
                '\0'..=' ' if char != ' ' => self.escaped(char),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => self.escaped(char),
                _ => self.text.push(char),
            }
        }
        self.text.push('"');
    }

    fn escaped(&mut self, char: char) {
        self.text.push_str(&format!("\\u{:04x}", u32::from(char)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a specification and hashes it as a whole.
    fn hash_of(json: &str, namespace: &str, name: &str) -> Box<str> {
        let mut spec: Spec = serde_json::from_str(json).expect("a specification");
        let written = go_json(&spec);
        assert_eq!(
            written,
            json.replace("t<1", "t\\u003c1"),
            "what is written is what was read"
        );
        if !name.is_empty() {
            spec.set_defaults();
        }
        hash(&go_json(&spec), namespace, name)
    }

    #[test]
    fn the_hashes_of_knatives_own_tests_come_out() {
        let paths = r#"{"rules":[{"hosts":["example.com"],"http":{"paths":[{"splits":[{"serviceNamespace":"","serviceName":"blah","servicePort":0}]}]}}]}"#;
        let expected = "a25000a350642c8abef53078b329bd043e18758f6063c1172d53b04e14fcf5c1";
        assert_eq!(&*hash_of(paths, "", ""), expected);
        let headers = r#"{"rules":[{"hosts":["example.com"],"http":{"paths":[{"splits":[{"serviceNamespace":"","serviceName":"blah","servicePort":0,"appendHeaders":{"Foo":"bar"}}]}]}}]}"#;
        let expected = "6b652c7abed871354affd4a9cb699d33816f24541fac942149b91ad872fe63ca";
        assert_eq!(&*hash_of(headers, "", ""), expected);
    }

    #[test]
    fn the_hashes_of_whole_ingresses_come_out() {
        let route = r#"{"rules":[{"hosts":["hello.default.example.com"],"visibility":"ExternalIP","http":{"paths":[{"splits":[{"serviceNamespace":"default","serviceName":"hello-00001","servicePort":80,"percent":100,"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00001"}}]}]}}],"httpOption":"Enabled"}"#;
        let expected = "ef7852e1be9ad0620814c4d952a07f610ef0f85d5ee171bc86b899bf575f77ca";
        assert_eq!(&*hash_of(route, "default", "hello"), expected);
        let everything = r#"{"tls":[{"hosts":["a.example.com"],"secretName":"s","secretNamespace":"ns1"}],"rules":[{"hosts":["a.example.com"],"visibility":"ExternalIP","http":{"paths":[{"path":"/x","rewriteHost":"a.ns1.svc.cluster.local","headers":{"Knative-Serving-Tag":{"exact":"t<1"}},"splits":[{"serviceNamespace":"ns1","serviceName":"a","servicePort":"http","percent":100}],"appendHeaders":{"A":"1","B":"2"}}]}}],"httpOption":"Redirected"}"#;
        let expected = "48eca957f0e75e16a493f69f4e2e41b97b86089b54c3367d9b5147a454ba7e64";
        assert_eq!(&*hash_of(everything, "ns1", "ing1"), expected);
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut json = Json::default();
        json.string("a\"\\\u{8}\u{c}\n\r\t\u{1}\u{1f} <>&\u{2028}\u{2029}\u{7f}é🦀");
        let expected = "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f \\u003c\\u003e\\u0026\\u2028\\u2029\u{7f}é🦀\"";
        assert_eq!(json.text, expected);
    }

    #[test]
    fn empty_lists_are_left_out_but_where_the_type_keeps_them() {
        let written = |json: &str| go_json(&serde_json::from_str(json).expect("a specification"));
        assert_eq!(written(r#"{"rules":[],"tls":null,"future":1}"#), "{}");
        assert_eq!(
            written(r#"{"rules":[{"hosts":[],"http":{}}]}"#),
            r#"{"rules":[{"http":{"paths":null}}]}"#
        );
        assert_eq!(
            written(r#"{"rules":[{"http":{"paths":[]}}]}"#),
            r#"{"rules":[{"http":{"paths":[]}}]}"#
        );
        let path = r#"{"rules":[{"http":{"paths":[{"headers":{"a":{}},"appendHeaders":{}}]}}]}"#;
        let expected =
            r#"{"rules":[{"http":{"paths":[{"headers":{"a":{"exact":""}},"splits":null}]}}]}"#;
        assert_eq!(written(path), expected);
    }

    prop_compose! {
        fn a_split()(name in ".{0,8}", port in 0..70000i32, named in any::<bool>(), percent in 0..=100i64,
                     headers in prop::collection::btree_map(".{0,4}", ".{0,8}", 0..3)) -> Split {
            let service_port = match named {
                true => IntOrString::String(name.clone()),
                false => IntOrString::Int(port),
            };
            Split { service_namespace: "ns".into(), service_name: name, service_port, percent, append_headers: headers }
        }
    }

    prop_compose! {
        fn a_spec()(hosts in prop::collection::vec(".{0,8}", 0..3), path in ".{0,8}", option in ".{0,3}",
                    splits in prop::option::of(prop::collection::vec(a_split(), 0..3)),
                    exact in prop::collection::btree_map(".{0,4}", ".{0,8}", 0..3)) -> Spec {
            let headers = exact.into_iter().map(|(name, exact)| (name, HeaderMatch { exact })).collect();
            let path = Path { path, headers, splits, ..Path::default() };
            let http = Some(super::super::ingress::Http { paths: Some(vec![path]) });
            let rule = Rule { hosts: hosts.clone(), visibility: String::new(), http };
            Spec { tls: vec![Tls { hosts, ..Tls::default() }], rules: vec![rule], http_option: option }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_what_it_was(spec in a_spec()) {
            let read: Spec = serde_json::from_str(&go_json(&spec)).expect("JSON");
            prop_assert_eq!(read, spec);
        }

        #[test]
        fn strings_read_as_what_they_were(text in any::<String>()) {
            let mut json = Json::default();
            json.string(&text);
            let read: String = serde_json::from_str(&json.text).expect("JSON");
            prop_assert_eq!(read, text);
            let escaped = ['<', '>', '&', '\u{2028}', '\u{2029}'];
            prop_assert!(!json.text.contains(escaped));
        }
    }
}
