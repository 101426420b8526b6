//! Turns of an HTTP/2 connection and its streams, all in the one task of the connection.
//!
//! A task for each stream would cost more than much of what a stream does: it is allocated, scheduled and freed, and wakes
//! the connection, which writes for each by itself. Here those who are ready stand in a list, and a turn of the task goes
//! through it: first the streams, then the connection, which so writes at once what all of them have said.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Times that a turn goes through the list before other connections have theirs: streams can make each other ready
/// without end.
const ROUNDS_MAX: usize = 16;

/// Who has a turn when they are ready: a connection, and streams `F`.
pub struct Turns<F> {
    ready: Arc<Ready>,
    connection: Member,
    seats: Vec<Seat<F>>,
    /// Seats that are free.
    vacant: Vec<usize>,
    /// Those whose turn it is; kept for its memory.
    round: Vec<usize>,
    rounds_left: usize,
}

/// Room for a stream, which one stream has after the other. One that comes may be woken by what the last one had waited
/// for, which does no harm.
struct Seat<F> {
    stream: Pin<Box<Option<F>>>,
    member: Member,
}

/// Somebody who can be woken.
struct Member {
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    seat: usize,
    /// It stands in the list.
    has_rung: AtomicBool,
    ready: Arc<Ready>,
}

/// The seat of the connection.
const CONNECTION: usize = usize::MAX;

/// Those who are ready. Wakers may be used from any thread, hence the lock; all that we have are used from one.
#[derive(Default)]
struct Ready(Mutex<List>);

#[derive(Default)]
struct List {
    seats: Vec<usize>,
    /// Whoever rings is heard without the task's being woken: a turn is under way, or the task was woken before.
    is_attended: bool,
    task: Option<Waker>,
}

impl Ready {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.has_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut list = self.ready.list();
        list.seats.push(self.seat);
        let is_attended = std::mem::replace(&mut list.is_attended, true);
        let task = if is_attended { None } else { list.task.clone() };
        drop(list);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Member {
    fn new(seat: usize, ready: &Arc<Ready>) -> Self {
        let bell = Arc::new(Bell { seat, has_rung: AtomicBool::new(false), ready: Arc::clone(ready) });
        Self { waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// What rings from now on is for another turn.
    fn hear(&self) {
        self.bell.has_rung.store(false, Ordering::Release);
    }
}

impl<F: Future<Output = ()>> Turns<F> {
    /// A connection without streams, which is ready.
    pub fn new() -> Self {
        let ready = Arc::new(Ready::default());
        let connection = Member::new(CONNECTION, &ready);
        connection.waker.wake_by_ref();
        Self { ready, connection, seats: Vec::new(), vacant: Vec::new(), round: Vec::new(), rounds_left: 0 }
    }

    /// What the connection is polled with.
    pub fn connection_waker(&self) -> Waker {
        self.connection.waker.clone()
    }

    /// Takes in a stream, which is ready.
    pub fn join(&mut self, stream: F) {
        let seat = self.vacant.pop().unwrap_or_else(|| {
            let seat = self.seats.len();
            self.seats.push(Seat { stream: Box::pin(None), member: Member::new(seat, &self.ready) });
            seat
        });
        if let Some(seat) = self.seats.get_mut(seat) {
            seat.stream.set(Some(stream));
            seat.member.waker.wake_by_ref();
        }
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.vacant.len() == self.seats.len()
    }

    /// Whether there is no stream, and room is kept for some.
    pub fn is_vacant(&self) -> bool {
        self.is_empty() && !self.seats.is_empty()
    }

    /// Gives the room back that streams have had. Nothing happens while there is one.
    pub fn give_back(&mut self) {
        if self.is_empty() {
            (self.seats, self.vacant, self.round) = Default::default();
        }
    }

    /// Begins a turn of the task that polls this; [`Turns::next`] has to be asked until it says that it is over.
    pub fn begin(&mut self, context: &Context<'_>) {
        let mut list = self.ready.list();
        list.is_attended = true;
        if !list.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            list.task = Some(context.waker().clone());
        }
        self.rounds_left = ROUNDS_MAX;
    }

    /// Has those streams take their turn that are ready. `Ready` when it is the connection's; `Pending` when nobody is ready
    /// any more, and the task's turn is over.
    pub fn next(&mut self, context: &Context<'_>) -> Poll<()> {
        loop {
            let mut list = self.ready.list();
            if list.seats.is_empty() {
                list.is_attended = false;
                return Poll::Pending;
            }
            if self.rounds_left == 0 {
                // Attended as before: by the turn that this asks for.
                drop(list);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.rounds_left -= 1;
            std::mem::swap(&mut list.seats, &mut self.round);
            drop(list);
            if self.go_round() {
                self.connection.hear();
                return Poll::Ready(());
            }
        }
    }

    /// Whether the connection was among those who were ready.
    fn go_round(&mut self) -> bool {
        let mut is_for_connection = false;
        let mut round = std::mem::take(&mut self.round);
        for seat in round.drain(..) {
            if seat == CONNECTION {
                is_for_connection = true;
            } else {
                self.poll_stream(seat);
            }
        }
        self.round = round;
        is_for_connection
    }

    fn poll_stream(&mut self, at: usize) {
        let Some(Seat { stream, member }) = self.seats.get_mut(at) else { return };
        member.hear();
        let Some(future) = stream.as_mut().as_pin_mut() else { return };
        let mut context = Context::from_waker(&member.waker);
        // Without the runtime's budget, which is one for the whole task: who has used it up is told to wait for nothing.
        if pin!(tokio::task::unconstrained(future)).poll(&mut context).is_ready() {
            stream.set(None);
            self.vacant.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type Stream = Pin<Box<dyn Future<Output = ()>>>;

    fn begun() -> (Turns<Stream>, Arc<Task>) {
        (Turns::new(), Arc::default())
    }

    /// The turns of the connection in one of the task.
    fn turn(turns: &mut Turns<Stream>, task: &Arc<Task>) -> usize {
        let waker = Waker::from(Arc::clone(task));
        let context = Context::from_waker(&waker);
        turns.begin(&context);
        std::iter::from_fn(|| turns.next(&context).is_ready().then_some(())).count()
    }

    /// A stream that leaves its waker, and ends when it is told to.
    fn stream(left: &Rc<RefCell<Option<Waker>>>, is_over: &Rc<Cell<bool>>) -> Stream {
        let (left, is_over) = (Rc::clone(left), Rc::clone(is_over));
        Box::pin(std::future::poll_fn(move |context| {
            *left.borrow_mut() = Some(context.waker().clone());
            if is_over.get() { Poll::Ready(()) } else { Poll::Pending }
        }))
    }

    #[test]
    fn those_who_ring_have_a_turn_and_the_task_is_woken_once() {
        let (mut turns, task) = begun();
        let (left, is_over) = (Rc::default(), Rc::default());
        turns.join(stream(&left, &is_over));
        assert_eq!(turn(&mut turns, &task), 1);
        let waker = left.borrow().clone().unwrap();
        is_over.set(true);
        (0..3).for_each(|_| waker.wake_by_ref());
        turns.connection_waker().wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert!(!turns.is_empty());
        assert_eq!(turn(&mut turns, &task), 1);
        assert!(turns.is_empty());
        assert_eq!(turn(&mut turns, &task), 0);
    }

    #[test]
    fn connection_that_a_stream_rings_is_heard_in_the_same_turn() {
        let (mut turns, task) = begun();
        assert_eq!(turn(&mut turns, &task), 1);
        let connection = turns.connection_waker();
        turns.join(Box::pin(async move { connection.wake() }));
        assert_eq!(turn(&mut turns, &task), 1);
        // By the stream that joined outside of a turn.
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn stream_that_is_always_ready_does_not_keep_the_task() {
        let (mut turns, task) = begun();
        let polled = Rc::new(Cell::new(0));
        let count = Rc::clone(&polled);
        turns.join(Box::pin(std::future::poll_fn(move |context| {
            count.set(count.get() + 1);
            context.waker().wake_by_ref();
            Poll::Pending
        })));
        assert_eq!(turn(&mut turns, &task), 1);
        assert_eq!((polled.get(), task.0.load(Ordering::Relaxed)), (16, 1));
        assert_eq!(turn(&mut turns, &task), 0);
        assert_eq!((polled.get(), task.0.load(Ordering::Relaxed)), (32, 2));
    }

    #[test]
    fn seat_is_taken_again_and_a_former_waker_does_no_harm() {
        let (mut turns, task) = begun();
        let (left, is_over) = (Rc::default(), Rc::new(Cell::new(true)));
        turns.join(stream(&left, &is_over));
        turn(&mut turns, &task);
        assert!(turns.is_vacant());
        let former = left.borrow().clone().unwrap();
        is_over.set(false);
        turns.join(stream(&left, &is_over));
        assert_eq!(turns.seats.len(), 1);
        former.wake_by_ref();
        turn(&mut turns, &task);
        assert!(!turns.is_empty());
        is_over.set(true);
        former.wake_by_ref();
        turn(&mut turns, &task);
        turns.give_back();
        former.wake();
        turn(&mut turns, &task);
        assert_eq!((turns.seats.len(), turns.is_vacant()), (0, false));
    }
}
