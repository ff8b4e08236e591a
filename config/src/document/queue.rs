//! Waiting as people write it: how long, how many, who goes first.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::{At, DurationText, Text};
use crate::compile::report::{BYTES_MAX, LIST, REQUESTS_MAX};

/// How many requests may wait, how long, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Queue {
    /// Most waiting requests (1000).
    #[schemars(range(min = 0, max = REQUESTS_MAX))]
    pub depth: Option<At<i64>>,
    /// Bytes kept for them: bodies, each charged 64 KiB at most, and of each head what goes beyond
    /// 2 KiB. A request that needs more than that is refused (half of `limits.heldBytes` while there
    /// are several revisions, else all).
    #[schemars(range(min = 0, max = BYTES_MAX))]
    pub bytes: Option<At<i64>>,
    /// From arrival to slot (`300s`).
    pub wait: Option<At<WaitText>>,
    /// Most waiting requests of one client, as `fairBy` tells clients apart, at most `depth`; 0 = no
    /// bound of its own (0).
    #[schemars(range(min = 0, max = REQUESTS_MAX))]
    pub per_client: Option<At<i64>>,
    /// Who is one client: clients of the same priority take turns (`address`). `address` is where
    /// the request comes from, as `trustedProxies` and PROXY protocol headers say it, of IPv6 its
    /// /64 network; `header:NAME` the first value of a request header; `claim:NAME` a text or number
    /// in the bearer token (a JWT of at most 8 KiB) of `Authorization`; `none` everybody together.
    /// Where there is no such header or claim, or it is empty, the address. Header and
    /// claim are believed as they come: who sends another with each request passes for many clients
    /// and gets as many turns. So use what an authenticating proxy in front writes, or bound each
    /// address with `limits.heldPerAddress`.
    pub fair_by: Option<At<Text>>,
    /// Class of its requests, 0 to 7, where neither rule nor route says another; 7 goes first (4).
    #[schemars(range(min = 0, max = 7))]
    pub priority: Option<At<i64>>,
}

/// `auto`, or a number and a unit: `500ms`, `10s`, `5m`, `1h`, `1m30s`. `auto` is 3.5 times as long
/// as nearly all (95 %) of the revision's starts took, at least 10 s, at most the timeout in effect
/// for the request (300 s where there is none); before any start was seen, that timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WaitText(pub Text);

impl JsonSchema for WaitText {
    fn schema_name() -> Cow<'static, str> {
        "Wait".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`auto`, or a number and a unit: `500ms`, `10s`, `5m`, `1h`, `1m30s`. \
                `auto` is 3.5 times as long as nearly all (95 %) of the revision's starts took, at \
                least 10 s, at most the timeout in effect for the request (300 s where there is \
                none); before any start was seen, that timeout.",
            "pattern": "^(auto|0|([0-9]+(ms|s|m|h))+)$"
        })
    }
}

/// The class of requests: a number, or where to find it.
#[derive(Clone, Debug, PartialEq)]
pub enum Priority {
    Class(i64),
    Header(At<Text>),
    /// Something else, which is for the compiler to refuse: it knows the path of the key.
    Neither(Text),
}

/// The request's own word for its class.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromHeader {
    header: At<Text>,
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PriorityVisitor;

        impl<'de> Visitor<'de> for PriorityVisitor {
            type Value = Priority;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a class of 0 to 7, or `{header: NAME}`")
            }

            fn visit_i64<E>(self, class: i64) -> Result<Priority, E> {
                Ok(Priority::Class(class))
            }

            fn visit_u64<E>(self, class: u64) -> Result<Priority, E> {
                Ok(Priority::Class(i64::try_from(class).unwrap_or(i64::MAX)))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Priority, E> {
                Ok(Priority::Neither(number.to_string().into()))
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Priority, E> {
                Ok(Priority::Neither(yes.to_string().into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Priority, E> {
                Ok(Priority::Neither(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Priority, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Priority::Neither(LIST.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Priority, A::Error> {
                let from = FromHeader::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Priority::Header(from.header))
            }
        }

        if !deserializer.is_human_readable() {
            return match Deserialize::deserialize(deserializer)? {
                (Some(class), None, None) => Ok(Priority::Class(class)),
                (None, Some(header), None) => Ok(Priority::Header(header)),
                (None, None, Some(text)) => Ok(Priority::Neither(text)),
                _ => Err(D::Error::custom("not one of class, header and text")),
            };
        }
        deserializer.deserialize_any(PriorityVisitor)
    }
}

/// For keeping documents packed, never for people: class, header and text, all but one of them
/// missing.
impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts: (Option<i64>, Option<&At<Text>>, Option<&Text>) = match self {
            Priority::Class(class) => (Some(*class), None, None),
            Priority::Header(header) => (None, Some(header), None),
            Priority::Neither(text) => (None, None, Some(text)),
        };
        parts.serialize(serializer)
    }
}

impl JsonSchema for Priority {
    fn schema_name() -> Cow<'static, str> {
        "Priority".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "object"],
            "description": "A class of 0 to 7, or `{header: NAME}`. Waiting requests of class 7 go \
                first; those below are let in now and then, so that none waits for ever.",
            "minimum": 0,
            "maximum": 7,
            "properties": {
                "header": {
                    "type": "string",
                    "description": "Request header whose value is one digit, 0 to 7. A request \
                        without it, or with another value, has `queue.priority` of its revision. \
                        Whoever can send the header chooses the class: let what stands in front \
                        write it."
                }
            },
            "required": ["header"],
            "additionalProperties": false
        })
    }
}

/// How long the client itself waits, as it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Deadline {
    /// Request header with the time from arrival to the last byte, written like here (`500ms`, `10s`,
    /// `1m30s`) or in plain seconds (`10`, `0.5`). It shortens the gateway's own bounds, waiting
    /// included, and never extends one; what cannot be read, and `0`, is passed over.
    pub header: At<Text>,
}

/// What an endpoint that just appeared is given at first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RampUp {
    /// Most requests in flight at it in the beginning; 0 = as many as later on (8).
    #[schemars(range(min = 0, max = REQUESTS_MAX))]
    pub initial: Option<At<i64>>,
    /// After how long without a failure that is doubled while requests wait, at least `10ms`; each
    /// answer adds one as well (`1s`). Not with `initial: 0`.
    pub interval: Option<At<DurationText>>,
}
