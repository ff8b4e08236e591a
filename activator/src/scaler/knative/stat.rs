//! What is said to Knative's autoscaler: the protobuf messages of package `metrics`, written by hand
//! because there are three of them and they do not change (`pkg/autoscaler/metrics/stat.proto`).

use config::revision::Key;
use prost::Message;

use super::report::Measured;

/// So many revisions in one message at most: some fifty kibibytes.
pub(super) const REVISIONS_PER_MESSAGE: usize = 500;

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireStatMessages {
    #[prost(message, repeated, tag = "1")]
    pub(super) messages: Vec<WireStatMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireStatMessage {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    /// The revision's.
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) stat: Option<Stat>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stat {
    /// Who says it.
    #[prost(string, tag = "1")]
    pub(super) pod_name: String,
    #[prost(double, tag = "2")]
    pub(super) average_concurrent_requests: f64,
    /// This and the next are for who stands behind an activator.
    #[prost(double, tag = "3")]
    pub(super) average_proxied_concurrent_requests: f64,
    #[prost(double, tag = "4")]
    pub(super) request_count: f64,
    #[prost(double, tag = "5")]
    pub(super) proxied_request_count: f64,
    #[prost(double, tag = "6")]
    pub(super) process_uptime: f64,
    /// Seconds; 0 = the autoscaler's own time as it hears of it.
    #[prost(int64, tag = "7")]
    pub(super) timestamp: i64,
}

/// The bytes of one message about these revisions; the caller keeps to
/// [`REVISIONS_PER_MESSAGE`].
pub(super) fn encode(pod_name: &str, reports: &[(Key, Measured)]) -> Vec<u8> {
    let messages = reports.iter().map(|(key, measured)| WireStatMessage {
        namespace: (*key.namespace).to_owned(),
        name: (*key.name).to_owned(),
        stat: Some(Stat {
            pod_name: pod_name.to_owned(),
            average_concurrent_requests: measured.average,
            request_count: measured.count,
            ..Stat::default()
        }),
    });
    let messages = messages.collect();
    WireStatMessages { messages }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Written out after the rules of the encoding: tag and wire type, length, content.
    #[test]
    fn a_report_has_the_bytes_that_the_autoscaler_reads() {
        let measured = Measured {
            average: 1.0,
            count: 2.0,
        };
        let one = 1.0_f64.to_le_bytes();
        let two = 2.0_f64.to_le_bytes();
        let mut stat = b"\x0a\x02p0\x11".to_vec();
        stat.extend(one);
        stat.push(0x21);
        stat.extend(two);
        let mut message = b"\x0a\x02ns\x12\x03rev\x1a".to_vec();
        message.push(u8::try_from(stat.len()).unwrap());
        message.extend(stat);
        let mut expected = vec![0x0a, u8::try_from(message.len()).unwrap()];
        expected.extend(message);
        assert_eq!(encode("p0", &[(key("ns", "rev"), measured)]), expected);
    }

    #[test]
    fn nothing_measured_is_not_written() {
        let measured = Measured {
            average: 0.0,
            count: 0.0,
        };
        let bytes = encode("p", &[(key("n", "r"), measured)]);
        assert_eq!(bytes, b"\x0a\x0b\x0a\x01n\x12\x01r\x1a\x03\x0a\x01p");
    }

    #[test]
    fn every_field_is_read_by_its_number() {
        let bytes = b"\x0a\x3e\x0a\x01n\x12\x01r\x1a\x36\x0a\x01p\
            \x11\0\0\0\0\0\0\xf0?\x19\0\0\0\0\0\0\0@\x21\0\0\0\0\0\0\x08@\
            \x29\0\0\0\0\0\0\x10@\x31\0\0\0\0\0\0\x14@\x38\x86\xd5\x8c\xae\x06";
        let read = WireStatMessages::decode(&bytes[..]).unwrap();
        let stat = Stat {
            pod_name: "p".to_owned(),
            average_concurrent_requests: 1.0,
            average_proxied_concurrent_requests: 2.0,
            request_count: 3.0,
            proxied_request_count: 4.0,
            process_uptime: 5.0,
            timestamp: 1_707_289_222,
        };
        let message = WireStatMessage {
            namespace: "n".to_owned(),
            name: "r".to_owned(),
            stat: Some(stat),
        };
        assert_eq!(read.messages, [message]);
        assert_eq!(read.encode_to_vec(), bytes);
    }
}
