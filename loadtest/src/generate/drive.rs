//! The life of a connection, whatever is spoken on it.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::job::{Job, Sender};
use super::tally::{Answer, Fault, Ticket};

/// Waiting for the other side to close, once it has been asked to.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// An open connection of some protocol.
pub(super) trait Link: Sized {
    /// What all connections of a thread send.
    type Requests;

    /// Whether others use the connection too, so that it outlives a request without an answer.
    const SHARED: bool = false;

    /// Connects, within the time limit.
    async fn open(sender: &Sender, requests: &Self::Requests) -> Result<Self, Fault>;

    /// Sends the next request and reads its answer to the end.
    async fn exchange(&mut self, job: &Job, requests: &Self::Requests) -> Result<Answer, Fault>;

    /// Bytes of the last request's body that were sent.
    fn up(&self) -> u64;

    /// Whether another request may follow an answer.
    fn keeps(&self) -> bool;

    /// Whether another sender's request has been answered on it.
    fn is_proven(&self) -> bool {
        false
    }

    /// Ready once the other side has ended the connection, while no request is on its way.
    fn poll_end(&mut self, context: &mut Context<'_>, job: &Job) -> Poll<()>;
}

/// Sends requests on one connection until the run is over, making it anew when it is lost.
pub(super) async fn keep_alive<L: Link>(sender: Sender, requests: Rc<L::Requests>) {
    while sender.has_more() {
        match L::open(&sender, &requests).await {
            Ok(mut link) => serve(&mut link, &sender, &requests).await,
            Err(fault) => not_open(&sender, fault).await,
        }
    }
}

/// Makes a connection for each request.
pub(super) async fn new_connections<L: Link>(sender: Sender, requests: Rc<L::Requests>) {
    let mut now = Instant::now();
    while let Some(ticket) = sender.next(now).await {
        let answered = match L::open(&sender, &requests).await {
            Ok(mut link) => {
                let answered = exchange(&mut link, &sender, &requests, &ticket).await;
                if answered && !link.keeps() {
                    until_closed(&mut link, &sender).await;
                }
                answered
            }
            Err(fault) => sender.job.count(&ticket, Instant::now(), Err(fault), 0),
        };
        match answered {
            true => sender.well(),
            false => sender.back_off().await,
        }
        now = Instant::now();
    }
}

/// Sends one request, then keeps its connection until it ends or all are let go.
pub(super) async fn hold<L: Link>(sender: Sender, requests: Rc<L::Requests>) {
    let job = &*sender.job;
    let opened = L::open(&sender, &requests).await;
    let Some(ticket) = sender.next(Instant::now()).await else {
        return;
    };
    let held = match opened {
        Ok(mut link) => {
            let answered = exchange(&mut link, &sender, &requests, &ticket).await;
            (answered && link.keeps()).then_some(link)
        }
        Err(fault) => {
            job.count(&ticket, Instant::now(), Err(fault), 0);
            None
        }
    };
    job.shared.settled.fetch_add(1, Ordering::Relaxed);
    if let Some(mut link) = held {
        let ended = tokio::select! {
            () = poll_fn(|context| link.poll_end(context, job)) => true,
            () = job.released.notified() => false,
        };
        // Not every protocol wakes us when a connection ends.
        let ended = ended || has_ended(&mut link, job).await;
        job.tally.borrow_mut().held += u64::from(!ended);
    }
}

/// Sends requests until the connection or the run ends.
pub(super) async fn serve<L: Link>(link: &mut L, sender: &Sender, requests: &L::Requests) {
    let looks = L::SHARED || sender.job.pace.waits();
    let mut now = Instant::now();
    let mut answered = false;
    loop {
        if link.is_proven() && has_ended(link, &sender.job).await {
            return;
        }
        let Some(ticket) = sender.next(now).await else {
            return;
        };
        // Between requests the other side may close a connection, which is no error; one that
        // has not answered anything yet would go round for ever.
        if looks && (answered || link.is_proven()) && has_ended(link, &sender.job).await {
            return sender.give_back(ticket);
        }
        let (end, outcome) = ask(link, sender, requests, &ticket).await;
        if matches!(outcome, Err(Fault::Refused(_))) && (answered || link.is_proven()) {
            return sender.give_back(ticket);
        }
        answered = sender.job.count(&ticket, end, outcome, link.up());
        if answered {
            sender.well();
            now = end;
            if !link.keeps() {
                return;
            }
        } else {
            sender.back_off().await;
            if !L::SHARED || has_ended(link, &sender.job).await {
                return;
            }
            now = Instant::now();
        }
    }
}

/// Counts a request for which there is no connection, and waits before the next try.
pub(super) async fn not_open(sender: &Sender, fault: Fault) {
    if let Some(ticket) = sender.next(Instant::now()).await {
        sender.job.count(&ticket, Instant::now(), Err(fault), 0);
        sender.back_off().await;
    }
}

/// One request and its answer, counted; whether there was one.
async fn exchange<L: Link>(
    link: &mut L,
    sender: &Sender,
    requests: &L::Requests,
    ticket: &Ticket,
) -> bool {
    let (end, outcome) = ask(link, sender, requests, ticket).await;
    sender.job.count(ticket, end, outcome, link.up())
}

/// One request and how it ended, and when.
async fn ask<L: Link>(
    link: &mut L,
    sender: &Sender,
    requests: &L::Requests,
    ticket: &Ticket,
) -> (Instant, Result<Answer, Fault>) {
    let answer = link.exchange(&sender.job, requests);
    let outcome = sender.watch.limit(ticket.begun, answer).await;
    let outcome = outcome.unwrap_or(Err(Fault::Timeout("no answer in time")));
    (Instant::now(), outcome)
}

async fn has_ended<L: Link>(link: &mut L, job: &Job) -> bool {
    poll_fn(|context| Poll::Ready(link.poll_end(context, job).is_ready())).await
}

/// Lets the other side close, if it does so soon: who closes first keeps the port for a minute.
async fn until_closed<L: Link>(link: &mut L, sender: &Sender) {
    let job = &*sender.job;
    let now = Instant::now();
    let spent = job.plan.timeout.saturating_sub(CLOSE_WAIT);
    let since = now.checked_sub(spent).unwrap_or(now);
    let end = poll_fn(|context| link.poll_end(context, job));
    // In time or not, the answer is whole.
    sender.watch.limit(since, end).await.unwrap_or_default();
}
