//! A client of an API server that is not the gateway's: what it asks for, it takes as it comes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tests::{Answer, Client, request, within};

/// One request on a connection of its own.
pub(super) async fn get(address: SocketAddr, target: &str) -> Answer {
    let mut client = Client::connect(address).await;
    client.get("api", target).await
}

/// An open watch, read line by line.
pub(super) struct Watching {
    body: Incoming,
    unread: BytesMut,
    lines: VecDeque<Value>,
    _client: Client,
}

impl Watching {
    /// `target` is the path and query of a watch.
    pub(super) async fn open(address: SocketAddr, target: &str) -> Watching {
        let mut client = Client::connect(address).await;
        let response = within("a watch", client.open(request("GET", "api", target))).await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        Watching {
            body: response.into_body(),
            unread: BytesMut::new(),
            lines: VecDeque::new(),
            _client: client,
        }
    }

    /// The next event; `None` when the watch has ended, as it should or not.
    pub(super) async fn next(&mut self) -> Option<Value> {
        while self.lines.is_empty() {
            let frame = within("an event", self.body.frame()).await?.ok()?;
            self.unread.extend_from_slice(&frame.into_data().unwrap());
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                self.lines.push_back(serde_json::from_slice(&line).unwrap());
            }
        }
        self.lines.pop_front()
    }

    /// The next event's type and its object's name.
    pub(super) async fn told(&mut self) -> (String, String) {
        let event = self.next().await.expect("an open watch");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }
}
