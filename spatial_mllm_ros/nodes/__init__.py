"""The live node: an engine without middleware, and thin shells around it for ROS 2 and for plain DDS."""
