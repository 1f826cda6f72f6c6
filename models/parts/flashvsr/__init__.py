"""FlashVSR (Zhuang et al., CVPR 2026): its streaming network, decoders and weight files."""
