"""The CPU side of dropscale: watches the inbox, starts the engine, delivers; never imports numpy or cv2."""

__version__ = "0.1.0"
