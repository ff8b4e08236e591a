//! An endpoint for tests of a gateway inside their own process.

use std::net::{SocketAddr, TcpListener, TcpStream};

/// Serves each of its connections on a thread of its own, until the process ends.
pub(crate) fn endpoint(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}
