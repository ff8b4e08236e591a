//! Whatever the client speaks and whatever the endpoint speaks, the two do not notice.
//!
//! Each test here is run on four ways: `http1_to_http1`, `http1_to_http2`, `http2_to_http1` and
//! `http2_to_http2`.

mod bodies;
mod ends;
mod heads;

use std::fmt::Display;

use tests::{Client, Gateway, Wire};

use crate::{hello, hello_h2c};

/// What is spoken with the client, and what with the endpoint.
#[derive(Clone, Copy, Debug)]
struct Way {
    client: Wire,
    endpoint: Wire,
}

impl Way {
    /// A gateway with [`hello`] to that endpoint.
    async fn gateway(self, endpoint: &impl Display) -> Gateway {
        let yaml = match self.endpoint {
            Wire::Http1 => hello(endpoint),
            Wire::Http2 => hello_h2c(endpoint),
        };
        Gateway::start(&yaml).await
    }

    async fn client(self, gateway: &Gateway) -> Client {
        Client::speaking(self.client, gateway.public()).await
    }
}

/// Makes four tests of every function.
macro_rules! on_every_way {
    ($($test:ident)*) => {
        $crate::ways::on_way! { http1_to_http1 Http1 Http1 $($test)* }
        $crate::ways::on_way! { http1_to_http2 Http1 Http2 $($test)* }
        $crate::ways::on_way! { http2_to_http1 Http2 Http1 $($test)* }
        $crate::ways::on_way! { http2_to_http2 Http2 Http2 $($test)* }
    };
}

macro_rules! on_way {
    ($way:ident $client:ident $endpoint:ident $($test:ident)*) => {
        mod $way {
            use tests::Wire;
            use $crate::ways::Way;

            $(
                #[tokio::test]
                async fn $test() {
                    let (client, endpoint) = (Wire::$client, Wire::$endpoint);
                    super::$test(Way { client, endpoint }).await;
                }
            )*
        }
    };
}

use {on_every_way, on_way};
