//! Every answer of our own: reason word, status, gRPC code, what the client may read.
//!
//! The words are a closed set that clients, the access log and the metrics share; adding one means
//! a variant here and a row in `docs/operations.md` (a test compares them).

/// Who has to change something for the next request to fare better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Client,
    Endpoint,
    Capacity,
    Configuration,
    Ours,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $status:literal, $grpc:literal, $fault:ident, $sentence:literal;)*) => {
        /// Why an exchange did not end with the endpoint's own answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// In the order of declaration, which is the order of [`index`](Reason::index).
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];
        }

        const ROWS: &[Row] = &[$(Row {
            word: $word,
            status: $status,
            grpc: $grpc,
            fault: Fault::$fault,
            sentence: $sentence,
        },)*];
    };
}

struct Row {
    word: &'static str,
    status: u16,
    /// <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>
    grpc: u8,
    fault: Fault,
    sentence: &'static str,
}

// variant = word, status, gRPC code, whose fault, what the client reads
reasons! {
    BadRequest = "bad_request", 400, 13, Client, "The request is malformed.";
    UriTooLong = "uri_too_long", 414, 13, Client, "The request target is too long.";
    HeadTooLarge = "head_too_large", 431, 8, Client, "The request head is too large.";
    MethodNotAllowed = "method_not_allowed", 405, 12, Client, "The method is not allowed here.";
    ExpectationFailed = "expectation_failed", 417, 13, Client, "The expectation cannot be met.";
    NotImplemented = "not_implemented", 501, 12, Client, "The transfer coding is not supported.";
    BodyTooLarge = "body_too_large", 413, 8, Client, "The request body is too large.";
    HeaderTimeout = "header_timeout", 408, 4, Client, "The request head took too long.";
    BodyTimeout = "body_timeout", 408, 4, Client, "The request body took too long.";
    Unauthorized = "unauthorized", 401, 16, Client, "Credentials are missing or wrong.";
    Forbidden = "forbidden", 403, 7, Client, "The request is not permitted.";
    Misdirected = "misdirected", 421, 14, Client, "This connection does not serve that host.";
    LoopDetected = "loop_detected", 508, 14, Configuration, "The request came round to this gateway.";
    RateLimited = "rate_limited", 429, 8, Client, "Too many requests.";
    NoRoute = "no_route", 404, 12, Client, "No route matches this request.";
    QueueFull = "queue_full", 503, 14, Capacity, "Too many requests are already waiting.";
    Overloaded = "overloaded", 503, 14, Capacity, "The gateway is overloaded.";
    ShuttingDown = "shutting_down", 503, 14, Capacity, "The gateway is shutting down.";
    StartTimeout = "start_timeout", 504, 4, Capacity, "No capacity became ready in time.";
    StartFailed = "start_failed", 503, 14, Endpoint, "The service could not be started.";
    NoScaler = "no_scaler", 503, 14, Configuration, "The service has no endpoint and nothing could start one.";
    ConnectFailed = "connect_failed", 502, 14, Endpoint, "The endpoint could not be reached.";
    UpstreamClosed = "upstream_closed", 502, 14, Endpoint, "The endpoint closed the connection.";
    UpstreamInvalid = "upstream_invalid", 502, 14, Endpoint, "The endpoint's answer is malformed.";
    ResponseTimeout = "response_timeout", 504, 4, Endpoint, "The endpoint took too long to answer.";
    /// The client left; only the log and the metrics read it (499).
    ClientGone = "client_gone", 499, 1, Client, "The client left.";
    /// A time limit ended it after the head; the status is the endpoint's.
    StreamTimeout = "stream_timeout", 504, 4, Endpoint, "A time limit ended the response.";
    /// The endpoint ended it after the head; the status is the endpoint's.
    EndpointGone = "endpoint_gone", 502, 14, Endpoint, "The endpoint ended the response early.";
    Internal = "internal", 500, 13, Ours, "The gateway failed.";
}

impl Reason {
    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The word of `tidegate-reason`, the log and the metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().status
    }

    #[must_use]
    pub const fn grpc_code(self) -> u8 {
        self.row().grpc
    }

    #[must_use]
    pub const fn fault(self) -> Fault {
        self.row().fault
    }

    /// One short sentence, all that a client may read.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.row().sentence
    }

    /// Position in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Seconds for `Retry-After`, or what gRPC has for it, where the same request may be sent again
    /// with hope.
    #[must_use]
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Reason::RateLimited
            | Reason::QueueFull
            | Reason::Overloaded
            | Reason::ShuttingDown
            | Reason::StartTimeout => Some(1),
            Reason::StartFailed => Some(5),
            _ => None,
        }
    }

    /// After these, where the next request begins is in doubt: the connection closes.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Reason::BadRequest
                | Reason::UriTooLong
                | Reason::HeadTooLarge
                | Reason::NotImplemented
                | Reason::HeaderTimeout
                | Reason::BodyTimeout
                | Reason::BodyTooLarge
                | Reason::ShuttingDown
                | Reason::Internal
        )
    }
}

/// TurnedAway a connection was closed as soon as it was accepted. A label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// `limits.connections`.
    Connections,
    /// `connections` of its listener.
    Listener,
    /// `limits.connectionsPerAddress`.
    Address,
    /// The process has no descriptor left.
    Descriptors,
    /// The process has no memory left.
    Memory,
}

impl TurnedAway {
    /// In the order of declaration.
    pub const ALL: [TurnedAway; 5] = [
        TurnedAway::Connections,
        TurnedAway::Listener,
        TurnedAway::Address,
        TurnedAway::Descriptors,
        TurnedAway::Memory,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            TurnedAway::Connections => "connections",
            TurnedAway::Listener => "listener",
            TurnedAway::Address => "address",
            TurnedAway::Descriptors => "descriptors",
            TurnedAway::Memory => "memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_order_and_words_are_unique() {
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
