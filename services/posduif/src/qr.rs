//! A text in, a QR code for the terminal out.

use anyhow::Context;
use qrcode::{QrCode, render::unicode::Dense1x2};

/// Two rows of modules per line. Dark modules are left blank and light ones, the quiet zone included, are drawn:
/// on a dark terminal that is the code as scanners expect it.
pub fn render(text: &str) -> anyhow::Result<String> {
    let code = QrCode::new(text).context("the text does not fit into a QR code")?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}
