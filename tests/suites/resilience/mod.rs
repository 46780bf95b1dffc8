//! Deaths, silence and overload.

mod chaos;
mod overload;
mod restart;
