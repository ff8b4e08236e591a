//! TLS with clients and endpoints: rustls with aws-lc-rs over our own sockets.

pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
