mod protocol;
mod supervise;

pub use supervise::supervise;
