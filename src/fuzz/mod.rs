//! What the fuzz targets run: one function a target, which takes any octets and asserts what must hold.

mod smtp;
mod wire;

pub use smtp::smtp;
pub use wire::wire;
