"""Pictures of noise alone: by a DCGAN, the decoder of an autoencoder, a diffusion model."""
