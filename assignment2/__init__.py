"""Assignment 2: a Seq2Seq LSTM with attention forecasts hourly prices."""
