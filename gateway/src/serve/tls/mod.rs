//! TLS with clients and endpoints: rustls with aws-lc-rs over our own sockets.

pub mod accept;
pub mod endpoint;
mod files;
pub(crate) mod identity;
mod inside;
pub mod names;
pub mod server;
pub mod share;
pub mod store;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod tickets;
pub(crate) mod x509;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};

/// What all sessions are made with: every suite of rustls is an AEAD with forward secrecy. A key
/// exchange that a quantum computer cannot undo later goes first.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        Arc::new(CryptoProvider {
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..default_provider()
        })
    };
    PROVIDER.get_or_init(make).clone()
}
