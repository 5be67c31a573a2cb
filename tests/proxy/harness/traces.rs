//! Looking for a secret in bytes, in the forms that it could leak in.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The secret itself, its hex, and the part of its base64 that does not depend on its neighbours, for
/// each of the three ways it can lie in them.
pub fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    assert!(secret.len() >= 16, "too short to tell from chance");
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    for before in 0..3 {
        let shifted = [vec![0; before], secret.to_vec()].concat();
        let whole = shifted.len() / 3 * 3;
        let text = STANDARD.encode(&shifted[..whole]);
        // Characters that hold bits of what stands before.
        let skip = [0, 2, 3][before];
        forms.push(text.as_bytes()[skip..].to_vec());
    }
    forms
}

/// Whether the secret stands in `haystack` in any form.
pub fn leaks(haystack: &[u8], secret: &[u8]) -> bool {
    forms(secret)
        .iter()
        .any(|form| super::tap::contains(haystack, form))
}
