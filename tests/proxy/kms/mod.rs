//! Clients of streams whose keys a key management service holds send no key, and the service is asked seldom.

mod access;
mod errors;
mod moments;
mod moved;
mod operator;
mod outage;
mod ready;
mod rotation;
mod seldom;
mod setup;
