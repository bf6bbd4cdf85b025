"""What a rollout model must beat: no learning, POD with a linear map, FNO, U-Net and Transolver."""
