pub mod scaler;
