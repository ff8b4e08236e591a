
pub mod scaler;
