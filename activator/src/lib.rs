#[derive(Debug)]
pub struct Clock(std::cell::Cell<std::time::Instant>);
impl Clock {
    pub fn new(now: std::time::Instant) -> std::rc::Rc<Clock> {
        std::rc::Rc::new(Clock(std::cell::Cell::new(now)))
    }
    pub fn now(&self) -> std::time::Instant {
        self.0.get()
    }
    pub fn set(&self, n: std::time::Instant) {
        self.0.set(n)
    }
}
pub mod admission {
    pub use crate::Clock;
}
