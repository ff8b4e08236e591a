//! Templates as operators write them, and as nobody should.

use std::net::SocketAddr;
use std::time::Duration;

use config::source::kubernetes::config_maps::DEFAULT_TEMPLATE;
use proptest::prelude::*;

use crate::observe::facts::{Protocol, WaitReason};

use super::{LINE_MAX, Template, Values};

const HEADERS: &[(&[u8], &[u8])] = &[
    (b"X-Tenant", b"blue"),
    (b"x-tenant", b"green"),
    (b"referer", b"http://a.example.com/?a=1&b='2'"),
    (
        b"traceparent",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    (b"x-b3-traceid", b"463ac35c9f6413ad"),
];

fn values() -> Values<'static> {
    Values {
        method: b"POST",
        target: b"/brew/a%20b?size=l&x='1'",
        host: b"coffee.example.com",
        user_agent: b"curl/8.5.0 \"quoted\" \xff\xe2\x80\xa8",
        protocol: Protocol::Http11,
        content_length: 12,
        client: SocketAddr::from(([192, 0, 2, 7], 40_000)),
        code: 200,
        size: 3_400,
        latency: Duration::from_micros(57_250),
        waited: Duration::from_millis(12),
        wait_reason: Some(WaitReason::Cold),
        namespace: b"default",
        revision: b"coffee-00001",
        service: b"coffee",
        configuration: b"coffee-config",
        endpoint: Some([10, 0, 0, 5].into()),
        headers: HEADERS,
    }
}

fn written(template: &str, values: &Values<'_>) -> String {
    let template = Template::parse(template).unwrap_or_else(|bad| panic!("{template}: {bad}"));
    let mut line = Vec::new();
    template.render(values, &mut line);
    String::from_utf8(line).unwrap()
}

#[track_caller]
fn assert_line(template: &str, expected: &str) {
    let line = written(template, &values());
    assert_eq!(line.strip_suffix('\n'), Some(expected), "{template}");
}

#[track_caller]
fn assert_refused(template: &str, problem: &str) {
    let refused = Template::parse(template).unwrap_err().to_string();
    assert!(refused.contains(problem), "{template}: {refused}");
}

#[test]
fn knatives_own_template_makes_json_with_the_right_values() {
    let line = written(DEFAULT_TEMPLATE, &values());
    assert_eq!(line.matches('\n').count(), 1, "one line");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "httpRequest": {
                "requestMethod": "POST",
                "requestUrl": "/brew/a%20b?size=l&x='1'",
                "requestSize": "12",
                "status": 200,
                "responseSize": "3400",
                "userAgent": "curl/8.5.0 \"quoted\" \u{fffd}\u{2028}",
                "remoteIp": "192.0.2.7:40000",
                "serverIp": "10.0.0.5",
                "referer": "http://a.example.com/?a=1&b='2'",
                "latency": "0.05725s",
                "protocol": "HTTP/1.1",
            },
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        })
    );
    let template = Template::parse(DEFAULT_TEMPLATE).unwrap();
    let names: Vec<_> = template.names().iter().map(|name| &**name).collect();
    assert_eq!(names, ["referer", "traceparent", "x-b3-traceid"]);
}

#[test]
fn fields_are_written_as_go_prints_them() {
    assert_line(
        "{{.Revision.Namespace}}/{{ .Revision.Name }}",
        "default/coffee-00001",
    );
    assert_line(
        "{{.Revision.Service}} {{$.Revision.Configuration}}",
        "coffee coffee-config",
    );
    assert_line("{{.Revision.PodName}}|{{.Revision.PodIP}}", "|10.0.0.5");
    assert_line(
        "{{.Request.URL.Path}} {{.Request.URL.RawQuery}}",
        "/brew/a b size=l&x='1'",
    );
    assert_line("{{.Request.ProtoMajor}}.{{.Request.ProtoMinor}}", "1.1");
    assert_line(
        "{{.Request.Host}} {{.Response.Latency}}",
        "coffee.example.com 0.05725",
    );
    let waited = "{{.Response.QueueLatency}} {{.Response.WaitReason}}.";
    assert_line(waited, "0.012 cold.");
    let unsaid = Values {
        content_length: -1,
        protocol: Protocol::Http2,
        latency: Duration::from_micros(12),
        wait_reason: None,
        endpoint: None,
        headers: &[],
        ..values()
    };
    let template = "{{.Request.ContentLength}} {{.Request.Proto}} {{.Response.Latency}} \
                    [{{.Revision.PodIP}}{{.TraceID}}{{.Request.Referer}}]";
    assert_eq!(written(template, &unsaid), "-1 HTTP/2.0 1.2e-05 []\n");
    assert_eq!(written(waited, &unsaid), "0.012 .\n");
}

#[test]
fn header_fields_are_lists_and_their_first_value() {
    assert_line("{{index .Request.Header \"X-Tenant\"}}", "[blue green]");
    assert_line("{{index .Request.Header \"X-Tenant\" 1}}", "green");
    assert_line(
        "{{index (index .Request.Header \"X-Tenant\") 0 | js}}",
        "blue",
    );
    assert_line("{{.Request.Header.Get \"x-tenant\"}}", "blue");
    assert_line("{{.Request.Header.Values `x-tenant` | len}}", "2");
    assert_line("{{index .Request.Header \"Nothing\"}}", "[]");
    assert_line("{{.Request.Header.Get \"Nothing\"}}", "");
    // As Go, which cannot know before.
    assert_line(
        "a{{index .Request.Header \"Nothing\" 0}}b",
        "Invalid request log template: method: POST, response code: 200, latency: 0.05725, \
         url: /brew/a%20b?size=l&x='1'",
    );
}

#[test]
fn a_trace_is_named_by_whoever_began_it() {
    let with = |headers| {
        written(
            "{{.TraceID}}",
            &Values {
                headers,
                ..values()
            },
        )
    };
    assert_eq!(with(&[(b"X-B3-TraceId", b"463ac35c")]), "463ac35c\n");
    assert_eq!(
        with(&[(b"traceparent", b"x"), (b"x-b3-traceid", b"ab")]),
        "ab\n"
    );
    assert_eq!(
        with(&[(b"traceparent", b"00-\",\"admin\":\"-1")]),
        "\n",
        "no way out of quotes"
    );
}

#[test]
fn conditions_choose_and_pipes_pass_on() {
    let level = "{{if ge .Response.Code 500}}error{{else if ge .Response.Code 400}}warn\
                 {{else}}info{{end}}";
    assert_line(level, "info");
    let failed = |code| written(level, &Values { code, ..values() });
    assert_eq!(
        (failed(404).as_str(), failed(503).as_str()),
        ("warn\n", "error\n")
    );
    assert_line(
        "{{if .TraceID}}t{{end}}{{if not .Revision.PodName}}n{{end}}",
        "tn",
    );
    assert_line(
        "{{if and (eq .Request.Method `GET` `POST`) (lt .Response.Latency 0.1)}}x{{end}}",
        "x",
    );
    assert_line(
        "{{or .Revision.PodName .Revision.Name \"-\"}}",
        "coffee-00001",
    );
    assert_line(
        "{{if index .Request.Header \"Nothing\"}}x{{else}}y{{end}}",
        "y",
    );
    assert_line(
        "{{.Revision.Name | printf \"%s:%s\" .Revision.Service | len}}",
        "19",
    );
}

#[test]
fn printf_writes_what_its_verbs_say() {
    assert_line(
        "{{printf \"%.3f %08.2f\" .Response.Latency .Response.Latency}}",
        "0.057 00000.06",
    );
    assert_line(
        "{{printf \"%5d|%-5d|%05d|%x\" 42 42 -42 255}}",
        "   42|42   |-0042|ff",
    );
    assert_line(
        "{{printf \"%q %v %t 100%% %.2s\" .Request.Method 1.5 true `abc`}}",
        "\"POST\" 1.5 true 100% ab",
    );
    for template in [
        "{{printf \"%d\" .Request.Method}}",
        "{{printf \"%d\" 1 2}}",
        "{{printf \"%d %d\" 1}}",
        "{{printf \"%999d\" 1}}",
        "{{printf \"%*d\" 1 1}}",
        "{{printf \"%\" 1}}",
        "{{printf .Request.Method}}",
    ] {
        assert_refused(template, "printf");
    }
}

#[test]
fn text_is_escaped_for_where_it_stands() {
    assert_line(
        "{{js \"a<b>'\\\"\\\\&=\\té\"}}",
        r#"a\u003Cb\u003E\u0027\"\\\u0026\u003D\u0009\u00E9"#,
    );
    assert_line(
        "{{html `<a href=\"x\">'&`}}",
        "&lt;a href=&#34;x&#34;&gt;&#39;&amp;",
    );
    assert_line("{{urlquery `a b&c/~é`}}", "a+b%26c%2F~%C3%A9");
    assert_line("{{.Response.Code | js}}", "200");
}

#[test]
fn white_space_and_comments_go_where_go_lets_them() {
    assert_line("a \n {{- /* why */ -}} \n b", "ab");
    assert_line("a {{- .Response.Code -}} b", "a200b");
    assert_line("a {{/* x }} */}} b", "a  b");
    assert_line("{{\"}}\"}} }}", "}} }}");
    assert_line("", "");
    assert_eq!(written("a\n", &values()), "a\n", "not two line ends");
}

#[test]
fn what_is_not_offered_is_refused_with_its_name() {
    for (template, problem) in [
        (
            "{{.Request.Nothing}}",
            "there is no such field: \"Request.Nothing\"",
        ),
        ("{{.}}", "there is no such field"),
        ("{{.Request.Header}}", "one by one"),
        ("{{len .Request.Header}}", "only index"),
        ("{{range .Request.Header}}{{end}}", "\"range\""),
        ("{{with .TraceID}}x{{end}}", "\"with\""),
        ("{{define \"x\"}}{{end}}", "\"define\""),
        ("{{template \"x\"}}", "\"template\""),
        ("{{$x := 1}}", "without a space"),
        ("{{nil}}", "\"nil\""),
        ("{{.Request.Header.Get .TraceID}}", "Request.Header.Get"),
        ("{{index .Request.Header .TraceID}}", "write index"),
        ("{{index .Request.Header \"a b\"}}", "no header field"),
        ("{{eq .Response.Code \"200\"}}", "eq does not take"),
        ("{{lt true false}}", "lt does not take"),
        ("{{and 1 \"a\"}}", "and does not take"),
        ("{{js}}", "js does not take"),
        ("{{.TraceID .TraceID}}", "only functions"),
        ("{{.TraceID | .TraceID}}", "only functions"),
        ("{{}}", "nothing to write"),
        ("{{if}}x{{end}}", "nothing to write"),
        ("{{if .TraceID}}x", "if has no end"),
        ("{{if .TraceID}}x{{else}}y", "else has no end"),
        ("x{{end}}", "end without an if"),
        ("{{else}}", "else without an if"),
        ("{{.TraceID", "has no end"),
        ("{{\"abc}}", "text has no end"),
        ("{{(.TraceID}}", "( without a )"),
        ("{{.TraceID)}}", ") without a ("),
        ("{{(.TraceID).X}}", "no fields"),
        ("{{js \"\\x41\"}}", "escape"),
        ("{{1e999}}", "no number"),
        ("{{.Request..Method}}", "dot"),
        ("{{js\"a\"}}", "without a space"),
    ] {
        assert_refused(template, problem);
    }
}

#[test]
fn everything_has_a_bound() {
    assert_refused(&"x".repeat(20_000), "longer than");
    assert_refused(&"{{1}}".repeat(3_000), "parts");
    assert_refused(
        &format!("{{{{{}1{}}}}}", "(".repeat(40), ")".repeat(40)),
        "within each other",
    );
    let deep = format!("{}{}", "{{if 1}}".repeat(40), "{{end}}".repeat(40));
    assert_refused(&deep, "within each other");
    let names = (0..20).map(|n| format!("{{{{index .Request.Header \"X-{n}\"}}}}"));
    assert_refused(&names.collect::<String>(), "header fields");
    let long = "a".repeat(10_000);
    let values = Values {
        target: long.as_bytes(),
        ..values()
    };
    let line = written(&"{{.Request.RequestURI}}".repeat(500), &values);
    assert_eq!(line.len(), LINE_MAX + 1);
}

/// Words that templates are made of, in any order.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "{{",
        "}}",
        "{{- ",
        " -}}",
        "|",
        "(",
        ")",
        "if ",
        "else ",
        "end",
        ".Request.Method",
        ".Response.Code",
        ".TraceID",
        ".Request.Header",
        "index ",
        "js ",
        "printf ",
        "\"%s\"",
        "\"X\"",
        "`",
        "\"",
        " 0 ",
        " 1.5 ",
        "eq ",
        "and ",
        "not ",
        "$",
        " ",
        "\n",
        "é",
        "/*",
        "*/",
        ".Request.Header.Get ",
        "x",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_is_a_template_that_writes_a_bounded_line_or_is_refused(text in words()) {
        if let Ok(template) = Template::parse(&text) {
            let mut line = Vec::new();
            template.render(&values(), &mut line);
            prop_assert!(line.ends_with(b"\n") && line.len() <= LINE_MAX + 1);
        }
    }

    #[test]
    fn knatives_template_makes_json_of_whatever_a_client_sends(
        target in prop::collection::vec(any::<u8>(), 0..100),
        agent in prop::collection::vec(any::<u8>(), 0..100),
        trace in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let headers: &[(&[u8], &[u8])] = &[(b"traceparent", &trace), (b"referer", &agent)];
        let values = Values { target: &target, user_agent: &agent, headers, ..values() };
        let line = written(DEFAULT_TEMPLATE, &values);
        prop_assert_eq!(line.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = json["httpRequest"]["requestUrl"].as_str().unwrap();
        prop_assert_eq!(url, &*String::from_utf8_lossy(&target));
    }
}
