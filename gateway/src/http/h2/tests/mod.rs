//! Heads as HTTP/2 carries them.

mod heads;
