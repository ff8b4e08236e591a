//! Boxes for futures, used again: what a request needs while it runs is large, and an idle
//! connection should not keep the place for it, nor a busy worker allocate it for every request.

use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Spare boxes kept per worker; beyond it they are freed.
const SPARE_MAX: usize = 1024;

/// One worker's spare boxes, all for the same type of future.
#[derive(Debug, Default)]
pub struct Boxes {
    /// A `Vec<Place<F>>`, once there was a future to be boxed: its type has no name.
    spare: RefCell<Option<Box<dyn Any>>>,
}

type Place<F> = Pin<Box<Option<F>>>;

/// A boxed future; its box goes back when it is dropped.
#[derive(Debug)]
pub struct Boxed<'a, F: Future + 'static> {
    boxes: &'a Boxes,
    /// Taken only by drop.
    place: Option<Place<F>>,
}

impl Boxes {
    /// Puts the future into a spare box, or a new one.
    pub fn put<F: Future + 'static>(&self, future: F) -> Boxed<'_, F> {
        let spare = self.with(Vec::pop).flatten();
        let place = match spare {
            Some(mut place) => {
                place.set(Some(future));
                place
            }
            None => Box::pin(Some(future)),
        };
        Boxed {
            boxes: self,
            place: Some(place),
        }
    }

    /// `None` when the boxes are for another type of future.
    fn with<F: 'static, T>(&self, act: impl FnOnce(&mut Vec<Place<F>>) -> T) -> Option<T> {
        let mut spare = self.spare.borrow_mut();
        let spare = spare.get_or_insert_with(|| Box::new(Vec::<Place<F>>::new()));
        spare.downcast_mut().map(act)
    }
}

impl<F: Future> Future for Boxed<'_, F> {
    type Output = F::Output;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self
            .place
            .as_mut()
            .and_then(|place| place.as_mut().as_pin_mut());
        future.expect("polled until it is ready").poll(cx)
    }
}

impl<F: Future + 'static> Drop for Boxed<'_, F> {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else {
            return;
        };
        place.set(None);
        let _kept = self.boxes.with(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_box_is_used_again() {
        let boxes = Boxes::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut places = Vec::new();
        for number in 0..3 {
            let mut boxed = pin!(boxes.put(ready(number)));
            let place = boxed
                .place
                .as_ref()
                .map(|place| std::ptr::from_ref(&**place));
            places.push(place.unwrap());
            assert_eq!(boxed.as_mut().poll(&mut context), Poll::Ready(number));
        }
        assert!(places.iter().all(|place| *place == places[0]));
    }

    #[test]
    fn another_type_of_future_gets_a_box_all_the_same() {
        let boxes = Boxes::default();
        drop(boxes.put(ready(1)));
        let mut boxed = pin!(boxes.put(ready("two")));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(boxed.as_mut().poll(&mut context), Poll::Ready("two"));
    }

    #[test]
    fn what_a_future_holds_is_let_go_with_it() {
        let boxes = Boxes::default();
        let held = std::rc::Rc::new(());
        let other = held.clone();
        let boxed = boxes.put(async move {
            std::future::pending::<()>().await;
            drop(other);
        });
        assert_eq!(std::rc::Rc::strong_count(&held), 2);
        drop(boxed);
        assert_eq!(std::rc::Rc::strong_count(&held), 1);
    }
}
