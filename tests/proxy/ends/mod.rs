//! How things end: cut bodies, resets, lost connections and neighbours, at the level of HTTP/2 frames.

mod answers;
mod dead;
mod exchange;
mod goaway;
mod http1;
mod neighbours;
mod relay;
mod requests;
mod resumed;
