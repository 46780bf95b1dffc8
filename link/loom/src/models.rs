//! What can go wrong between threads. A lost wake-up is a deadlock, which loom reports.

mod drain;
mod executor;
mod send_queue;

/// How often the model may take the processor from a thread that could go on. Most errors show
/// with two.
pub(crate) const MAX_PREEMPTIONS: usize = 3;

pub(crate) const ALL: [(&str, fn()); 9] = [
    (
        "executor: a wake while it runs or goes to sleep",
        executor::wake,
    ),
    (
        "executor: a wake from a thread of one that wakes itself, too",
        executor::wakes,
    ),
    (
        "executor: tasks come while it runs or goes to sleep",
        executor::spawn,
    ),
    ("executor: a wake while it ends", executor::wake_at_the_end),
    (
        "executor: a task comes while it ends",
        executor::spawn_at_the_end,
    ),
    ("drain: a phase while a task begins to wait", drain::advance),
    (
        "drain: a phase while a task gives up waiting",
        drain::give_up,
    ),
    (
        "send queue: a look while the socket is closed",
        send_queue::look_and_close,
    ),
    (
        "send queue: a look while the socket moves",
        send_queue::look_and_move,
    ),
];
