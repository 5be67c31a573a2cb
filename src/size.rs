//! Sizes in the configuration.

use bytesize::ByteSize;
use serde::Serializer;

/// Writes a size in the largest unit that it is a whole number of: `ByteSize` itself rounds.
///
/// # Errors
/// The serializer's own.
pub fn write<S: Serializer>(size: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
    let bytes = size.as_u64();
    let units = [
        (bytesize::GIB, "GiB"),
        (bytesize::MIB, "MiB"),
        (bytesize::KIB, "KiB"),
    ];
    let unit = units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "B"));
    to.collect_str(&format_args!("{} {name}", bytes / unit))
}
